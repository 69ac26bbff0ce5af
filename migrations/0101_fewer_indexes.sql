-- Sessions asked for in no order are given in that of creation, which has an index of its own.
DROP INDEX session_view_by_seq, session_view_by_owner_seq;
