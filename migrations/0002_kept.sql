-- What is kept beside the log: keys, snapshots, blobs, frames. All of it is encrypted; all but the keys can be lost.

CREATE TABLE store_meta (
    name  text PRIMARY KEY,
    value bytea NOT NULL
);

-- A session's data key is wrapped by its owner's key, a user's key by the master key. No row: erased.
CREATE TABLE keys (
    log_id     bigint NOT NULL,
    kind       text NOT NULL CHECK (kind IN ('user', 'session')),
    name       text NOT NULL,  -- the user, '' for nobody in particular; or the session
    owner      text NOT NULL,  -- the user
    key_id     uuid NOT NULL,
    wrapped    bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (log_id, kind, name),
    UNIQUE (log_id, key_id)
);

-- Over an expression, so that only a statement that asks for an owner can use it: a planner without statistics takes
-- any index that could serve, and would read all keys of a log to find one.
CREATE INDEX keys_by_owner ON keys ((owner || ''), log_id);

CREATE TABLE snapshots (
    log_id       bigint NOT NULL,
    stream_id    text NOT NULL,
    fold_version bigint NOT NULL,
    version      bigint NOT NULL,
    position     bigint NOT NULL,
    key_id       uuid NOT NULL,
    body         bytea NOT NULL,
    PRIMARY KEY (log_id, stream_id, fold_version)
);

CREATE TABLE blobs (
    log_id     bigint NOT NULL,
    session_id text NOT NULL,
    hash       text NOT NULL,
    key_id     uuid NOT NULL,
    body       bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (log_id, session_id, hash)
);

CREATE TABLE frames (
    log_id      bigint NOT NULL,
    tree_id     text NOT NULL,
    first_index bigint NOT NULL,
    last_index  bigint NOT NULL,
    count       bigint NOT NULL,
    key_id      uuid NOT NULL,
    body        bytea NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp()
) PARTITION BY RANGE (created_at);

CREATE INDEX frames_by_tree ON frames (log_id, tree_id, first_index);

-- Encrypted bytes do not compress: do not try.
ALTER TABLE snapshots ALTER COLUMN body SET STORAGE EXTERNAL;
ALTER TABLE blobs ALTER COLUMN body SET STORAGE EXTERNAL;
ALTER TABLE frames ALTER COLUMN body SET STORAGE EXTERNAL;

-- Frames that an event follows at once reach the disk with it; those of a text that goes on wait for the disk
-- themselves, a few times a second for all runs together, so that a crash of PostgreSQL leaves no hole in a text.
CREATE FUNCTION put_frames(
    f_log bigint[], f_tree text[], f_first bigint[], f_last bigint[], f_count bigint[], f_key uuid[], f_body bytea[],
    f_wait boolean
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF NOT f_wait THEN
        PERFORM set_config('synchronous_commit', 'off', true);
    END IF;
    INSERT INTO frames (log_id, tree_id, first_index, last_index, count, key_id, body)
    SELECT * FROM unnest(f_log, f_tree, f_first, f_last, f_count, f_key, f_body);
END $$;

CREATE FUNCTION put_snapshot(
    p_log bigint, p_stream text, p_fold bigint, p_version bigint, p_position bigint, p_key uuid, p_body bytea
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    INSERT INTO snapshots AS s (log_id, stream_id, fold_version, version, position, key_id, body)
    VALUES (p_log, p_stream, p_fold, p_version, p_position, p_key, p_body)
    ON CONFLICT (log_id, stream_id, fold_version) DO UPDATE
    SET version = excluded.version, position = excluded.position, key_id = excluded.key_id, body = excluded.body
    WHERE s.version < excluded.version;
END $$;

-- Partitions of events (a million positions each, two ahead) and frames (a day each, two ahead).
-- Made apart and then attached, because creating one in place would stop the log for a moment.
CREATE FUNCTION make_partitions() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    size constant bigint := 1000000;
    at   bigint := (SELECT coalesce(max(position), 0) / 1000000 FROM log_head);
    n    bigint;
    day  date;
    name text;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('daybook.partitions', 0));
    FOR n IN at .. at + 2 LOOP
        name := 'events_p' || n;
        CONTINUE WHEN to_regclass(name) IS NOT NULL;
        EXECUTE format('CREATE TABLE %I (LIKE events INCLUDING ALL)', name);
        EXECUTE format('ALTER TABLE events ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%s)',
            name, n * size, (n + 1) * size);
    END LOOP;
    FOR day IN SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date + d FROM generate_series(-1, 2) AS d LOOP
        name := 'frames_' || to_char(day, 'YYYYMMDD');
        CONTINUE WHEN to_regclass(name) IS NOT NULL;
        EXECUTE format('CREATE TABLE %I (LIKE frames INCLUDING ALL)', name);
        EXECUTE format('ALTER TABLE frames ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
            name, day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC');
    END LOOP;
END $$;

-- Drops the frames of days that ended more than a day ago; returns how many partitions went.
CREATE FUNCTION drop_old_frames() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    part    record;
    dropped bigint := 0;
BEGIN
    -- Dropping waits for every reader of frames; rather later than that new readers wait for it.
    PERFORM set_config('lock_timeout', '500ms', true);
    FOR part IN
        SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'frames'::regclass
            AND to_date(right(c.relname, 8), 'YYYYMMDD') < (clock_timestamp() AT TIME ZONE 'UTC')::date - 1
    LOOP
        EXECUTE format('DROP TABLE %I', part.relname);
        dropped := dropped + 1;
    END LOOP;
    RETURN dropped;
END $$;
