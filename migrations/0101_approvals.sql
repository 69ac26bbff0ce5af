-- The view of approvals, and the times at which somebody must look at something.

CREATE TABLE approval_view (
    log_id         bigint NOT NULL,
    version        int    NOT NULL,
    approval_id    text   NOT NULL,
    run_id         text   NOT NULL,
    owner_id       text   NOT NULL,  -- the requester
    component_kind text   NOT NULL,
    component_id   text   NOT NULL,
    approval_type  text   NOT NULL,
    pause_type     text   NOT NULL,
    status         text   NOT NULL,
    shown          boolean NOT NULL, -- false once deleted
    seq            bigint NOT NULL,  -- position of its first event
    position       bigint NOT NULL,  -- of the last event in the state
    state          text   NOT NULL,
    PRIMARY KEY (approval_id, log_id, version)
) WITH (fillfactor = 70);

CREATE INDEX approval_view_by_seq ON approval_view (log_id, version, seq) WHERE shown;
CREATE INDEX approval_view_by_status ON approval_view (log_id, version, status, seq) WHERE shown;
CREATE INDEX approval_view_by_owner ON approval_view (log_id, version, owner_id, seq) WHERE shown;
CREATE INDEX approval_view_by_run ON approval_view (run_id, log_id, version, seq) WHERE shown;

-- How many there are of each sort, so that totals need no counting.
CREATE TABLE approval_counts (
    log_id         bigint NOT NULL,
    version        int    NOT NULL,
    owner_id       text   NOT NULL,
    component_kind text   NOT NULL,
    component_id   text   NOT NULL,
    approval_type  text   NOT NULL,
    pause_type     text   NOT NULL,
    status         text   NOT NULL,
    n              bigint NOT NULL,
    PRIMARY KEY (log_id, version, owner_id, component_kind, component_id, approval_type, pause_type, status)
) WITH (fillfactor = 50);

-- Times are unix milliseconds. Whoever claims a row does what is due within `claimed_until`, or another claims it again;
-- what was done shows in the log, from where the row is posted anew or taken off.
CREATE TABLE timers (
    log_id        bigint NOT NULL,
    version       int    NOT NULL,
    stream_id     text   NOT NULL,
    due_ms        bigint NOT NULL,
    claimed_until bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (stream_id, log_id, version)
) WITH (fillfactor = 70);

CREATE INDEX timers_by_time ON timers (log_id, version, due_ms);
