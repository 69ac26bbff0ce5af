-- Views posted from the log; every one can be dropped and posted again. `version` is that of the projection's code: a new
-- version is built beside the old one. `owner_id` is '' where nobody owns the row. Times are unix seconds. `state` is the
-- fold as JSON text: never queried in SQL.

CREATE TABLE projection_checkpoints (
    log_id     bigint  NOT NULL,
    projection text    NOT NULL,
    version    int     NOT NULL,
    position   bigint  NOT NULL,
    ready      boolean NOT NULL,  -- it has reached the head once, so reads may use it
    PRIMARY KEY (log_id, projection, version)
) WITH (fillfactor = 10);  -- updated by every batch: room keeps the updates on one page

-- Streams a projection could not go on with. The rest of the log is not held up by them.
CREATE TABLE projection_parked (
    log_id         bigint      NOT NULL,
    projection     text        NOT NULL,
    version        int         NOT NULL,
    stream_id      text        NOT NULL,
    stream_version bigint      NOT NULL,  -- of the first event left out
    position       bigint      NOT NULL,  -- of the same event
    error          text        NOT NULL,
    parked_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (log_id, projection, version, stream_id)
);

-- Rows are looked up by their ids, first of all in the index: of a young table without statistics the planner thinks that
-- log and version alone find a row, and would walk over all of a log's.
CREATE TABLE run_view (
    log_id         bigint NOT NULL,
    version        int    NOT NULL,
    run_id         text   NOT NULL,
    session_id     text   NOT NULL,
    owner_id       text   NOT NULL,
    component_kind text   NOT NULL,
    component_id   text   NOT NULL,
    status         text   NOT NULL,
    created_at     bigint NOT NULL,
    updated_at     bigint NOT NULL,
    seq            bigint NOT NULL,  -- position of its first event: the order of acceptance
    position       bigint NOT NULL,  -- of the last event in the state
    state          text   NOT NULL,
    PRIMARY KEY (run_id, log_id, version)
) WITH (fillfactor = 70);  -- no indexed column ever changes: updates stay on their page

CREATE INDEX run_view_by_session ON run_view (session_id, log_id, version, seq);

CREATE TABLE session_view (
    log_id         bigint NOT NULL,
    version        int    NOT NULL,
    session_id     text   NOT NULL,
    owner_id       text   NOT NULL,
    component_kind text   NOT NULL,  -- '' without component
    component_id   text   NOT NULL,
    name           text   NOT NULL,  -- '' without name
    first_message  text,             -- what is shown as the name when there is none, cut short
    created_at     bigint NOT NULL,
    updated_at     bigint NOT NULL,
    seq            bigint NOT NULL,
    position       bigint NOT NULL,
    state          text   NOT NULL,
    PRIMARY KEY (session_id, log_id, version)
) WITH (fillfactor = 70);

CREATE INDEX session_view_by_seq ON session_view (log_id, version, seq);
CREATE INDEX session_view_by_creation ON session_view (log_id, version, created_at, seq);
CREATE INDEX session_view_by_update ON session_view (log_id, version, updated_at, seq);
-- Cut: an index entry must fit its page.
CREATE INDEX session_view_by_name ON session_view (log_id, version, left(name, 200), seq);
CREATE INDEX session_view_by_owner_seq ON session_view (log_id, version, owner_id, seq);
CREATE INDEX session_view_by_owner_creation ON session_view (log_id, version, owner_id, created_at, seq);
CREATE INDEX session_view_by_owner_update ON session_view (log_id, version, owner_id, updated_at, seq);

-- How many sessions there are, per owner and (everyone) over all owners, so that totals need no counting.
CREATE TABLE session_counts (
    log_id         bigint  NOT NULL,
    version        int     NOT NULL,
    everyone       boolean NOT NULL,
    owner_id       text    NOT NULL,
    component_kind text    NOT NULL,
    component_id   text    NOT NULL,
    n              bigint  NOT NULL,
    PRIMARY KEY (log_id, version, everyone, owner_id, component_kind, component_id)
) WITH (fillfactor = 50);

-- A stream's events after a version, always by its own index: where one stream is much of a log, or nothing is known of
-- the log yet, the planner would rather walk over all positions between the bounds and sort. Whoever knows that the
-- events lie after a position says so, and the partitions before it are left out.
CREATE FUNCTION read_stream(p_log bigint, p_stream text, p_version bigint, p_position bigint) RETURNS SETOF events
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan SET enable_sort = off SET enable_seqscan = off SET enable_bitmapscan = off
SET jit = off
AS $$
DECLARE
    bounds streams;
BEGIN
    SELECT * INTO bounds FROM streams s WHERE s.log_id = p_log AND s.stream_id = p_stream;
    IF bounds.version > p_version THEN
        RETURN QUERY
        SELECT e.* FROM events e
        WHERE e.log_id = p_log AND e.stream_id = p_stream AND e.version > p_version
            AND e.position > p_position AND e.position BETWEEN bounds.first_position AND bounds.last_position
        ORDER BY e.version;
    END IF;
END $$;
