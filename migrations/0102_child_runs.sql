-- Runs under others are no part of a session's lists, however many they are.
ALTER TABLE run_view ADD COLUMN parent_id text NOT NULL DEFAULT '';

DROP INDEX run_view_by_session;
CREATE INDEX run_view_by_session ON run_view (session_id, log_id, version, seq) WHERE parent_id = '';
