-- append_batch as before, but a lease is taken with the epoch that the caller says: a run that goes on after a pause keeps
-- counting, so that no frame's index comes twice.

-- Events are inserted by one statement per batch. Requests are numbered from 1; writes belong to requests, events to
-- writes. A request that fails a check is left out and told so; nothing else is lost by it.
-- Outcomes: 0 written, 1 duplicate of the same command, 2 duplicate key of another, 3 stream version, 4 lease, 5 key.
CREATE OR REPLACE FUNCTION append_batch(
    p_log bigint,
    -- per request
    r_principal text[], r_interface text[], r_correlation text[], r_causation text[], r_occurred timestamptz[],
    r_command_principal text[], r_command_route text[], r_command_key text[], r_command_hash bytea[],
    r_command_resource text[],
    r_lease_op smallint[],  -- 0 none, 1 take, 2 hold, 3 release
    r_lease_tree text[], r_lease_node text[], r_lease_epoch bigint[], r_lease_component text[],
    r_lease_tools text[],   -- JSON lists
    -- per write
    w_request int[], w_stream text[], w_expected bigint[],  -- -1: whatever it is
    w_count int[],
    -- per event, by write and order
    e_write int[], e_index int[], e_id uuid[], e_type text[], e_schema smallint[], e_payload text[],
    e_personal bytea[], e_key uuid[], e_content bytea[],
    -- per key used, by request; k_wrapped only for those not known to be stored
    k_request int[], k_id uuid[], k_session text[], k_owner text[], k_owner_key uuid[], k_wrapped bytea[],
    OUT outcomes smallint[], OUT details text[], OUT actuals bigint[], OUT versions bigint[], OUT positions bigint[],
    OUT recorded_us bigint
) LANGUAGE plpgsql
-- Every table is looked up by its whole key, row by row (OFFSET 0 and sub-selects keep lookups from becoming joins);
-- statistics of a young table must not suggest otherwise.
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET jit = off
AS $$
DECLARE
    n        int := cardinality(r_principal);
    head     bigint;
    recorded timestamptz;
    bases    bigint[];  -- per write: the stream's version before it
    befores  bigint[];  -- per write: the position before its first event; NULL when its request failed
    moved    bigint;
    bad      record;
BEGIN
    outcomes := array_fill(0::smallint, ARRAY[n]);
    details := array_fill(NULL::text, ARRAY[n]);
    actuals := array_fill(NULL::bigint, ARRAY[n]);

    -- First of all, so that batches wait for each other here and cannot deadlock further on.
    SELECT h.position, greatest(h.recorded_at, clock_timestamp()) INTO head, recorded
    FROM log_head h WHERE h.log_id = p_log FOR UPDATE;
    IF NOT FOUND THEN
        INSERT INTO log_head VALUES (p_log, 0, clock_timestamp()) ON CONFLICT DO NOTHING;
        SELECT h.position, greatest(h.recorded_at, clock_timestamp()) INTO head, recorded
        FROM log_head h WHERE h.log_id = p_log FOR UPDATE;
    END IF;

    -- Earliest checks win: a repeated command is a duplicate, whatever else is wrong with it by now.
    FOR bad IN
        SELECT r.request, c.resource, c.body_hash = r.hash AS same
        FROM unnest(r_command_principal, r_command_route, r_command_key, r_command_hash)
            WITH ORDINALITY AS r(principal, route, key, hash, request)
        JOIN LATERAL (
            SELECT c.resource, c.body_hash FROM commands c
            WHERE c.log_id = p_log AND c.principal = r.principal AND c.route = r.route AND c.key = r.key OFFSET 0
        ) AS c ON r.key IS NOT NULL
    LOOP
        outcomes[bad.request] := CASE WHEN bad.same THEN 1 ELSE 2 END;
        details[bad.request] := bad.resource;
    END LOOP;

    FOR bad IN
        SELECT r.request, r.tree
        FROM unnest(r_lease_op, r_lease_tree, r_lease_node, r_lease_epoch)
            WITH ORDINALITY AS r(op, tree, node, epoch, request)
        LEFT JOIN LATERAL (
            SELECT l.tree_id, l.node_id, l.epoch FROM leases l WHERE l.log_id = p_log AND l.tree_id = r.tree OFFSET 0
        ) AS l ON r.op > 0
        WHERE r.op > 0 AND CASE WHEN r.op = 1 THEN l.tree_id IS NOT NULL
            ELSE l.node_id IS DISTINCT FROM r.node OR l.epoch IS DISTINCT FROM r.epoch END
    LOOP
        IF outcomes[bad.request] = 0 THEN
            outcomes[bad.request] := 4;
            details[bad.request] := bad.tree;
        END IF;
    END LOOP;

    bases := ARRAY(
        SELECT coalesce((SELECT s.version FROM streams s WHERE s.log_id = p_log AND s.stream_id = w.stream), 0)
        FROM unnest(w_stream) WITH ORDINALITY AS w(stream, write)
        ORDER BY w.write);
    FOR bad IN
        SELECT w.request, w.stream, w.base
        FROM unnest(w_request, w_stream, w_expected, bases) AS w(request, stream, expected, base)
        WHERE w.expected >= 0 AND w.expected <> w.base
    LOOP
        IF outcomes[bad.request] = 0 THEN
            outcomes[bad.request] := 3;
            details[bad.request] := bad.stream;
            actuals[bad.request] := bad.base;
        END IF;
    END LOOP;

    -- A new session's key is kept when its user's is still there; of several, the first. Then every key must be the one
    -- that is kept: nothing may be written under one that was erased meanwhile, or that lost against another.
    INSERT INTO keys (log_id, kind, name, owner, key_id, wrapped)
    SELECT p_log, 'session', k.session, k.owner, k.id, k.wrapped
    FROM unnest(k_request, k_id, k_session, k_owner, k_owner_key, k_wrapped)
        AS k(request, id, session, owner, owner_key, wrapped)
    WHERE k.wrapped IS NOT NULL AND outcomes[k.request] = 0 AND k.owner_key = (
        SELECT o.key_id FROM keys o WHERE o.log_id = p_log AND o.kind = 'user' AND o.name = k.owner)
    ON CONFLICT DO NOTHING;
    FOR bad IN
        SELECT k.request, k.session
        FROM unnest(k_request, k_id, k_session) AS k(request, id, session)
        WHERE k.id IS DISTINCT FROM (
            SELECT s.key_id FROM keys s WHERE s.log_id = p_log AND s.kind = 'session' AND s.name = k.session)
    LOOP
        IF outcomes[bad.request] = 0 THEN
            outcomes[bad.request] := 5;
            details[bad.request] := bad.session;
        END IF;
    END LOOP;

    befores := ARRAY(
        SELECT CASE WHEN outcomes[w.request] = 0 THEN head - w.count
            + sum(CASE WHEN outcomes[w.request] = 0 THEN w.count ELSE 0 END) OVER (ORDER BY w.write) END
        FROM unnest(w_request, w_count) WITH ORDINALITY AS w(request, count, write)
        ORDER BY w.write);
    versions := ARRAY(SELECT w.base + w.count FROM unnest(bases, w_count) WITH ORDINALITY AS w(base, count, write)
        ORDER BY w.write);
    positions := ARRAY(SELECT w.before + w.count FROM unnest(befores, w_count) WITH ORDINALITY AS w(before, count, write)
        ORDER BY w.write);

    INSERT INTO streams AS s (log_id, stream_id, version, first_position, last_position)
    SELECT p_log, w.stream, w.base + w.count, w.before + 1, w.before + w.count
    FROM unnest(w_stream, w_count, bases, befores) AS w(stream, count, base, before)
    WHERE w.before IS NOT NULL AND w.count > 0
    ON CONFLICT (log_id, stream_id) DO UPDATE
    SET version = excluded.version, last_position = excluded.last_position;

    recorded_us := (extract(epoch FROM recorded) * 1000000)::bigint;
    INSERT INTO events (log_id, position, stream_id, version, event_id, type, schema_version, payload, personal,
        key_id, leaf_hash, principal, interface, correlation_id, causation_id, occurred_at, recorded_at)
    SELECT p_log, e.position, w_stream[e.write], e.version, e.id, e.type, e.schema, e.payload::json, e.personal, e.key,
        sha256('\x00'::bytea || int8send(p_log) || int8send(e.position) || int8send(e.version)
            || int8send(recorded_us) || e.content),
        r_principal[e.request], r_interface[e.request], r_correlation[e.request], r_causation[e.request],
        r_occurred[e.request], recorded
    FROM (
        SELECT u.*, w_request[u.write] AS request, befores[u.write] + u.index AS position,
            bases[u.write] + u.index AS version
        FROM unnest(e_write, e_index, e_id, e_type, e_schema, e_payload, e_personal, e_key, e_content)
            AS u(write, index, id, type, schema, payload, personal, key, content)
    ) AS e
    WHERE e.position IS NOT NULL;

    INSERT INTO commands (log_id, principal, route, key, body_hash, resource, recorded_at)
    SELECT p_log, r.principal, r.route, r.key, r.hash, r.resource, recorded
    FROM unnest(r_command_principal, r_command_route, r_command_key, r_command_hash, r_command_resource)
        WITH ORDINALITY AS r(principal, route, key, hash, resource, request)
    WHERE r.key IS NOT NULL AND outcomes[r.request] = 0;

    IF 1 = ANY (r_lease_op) THEN
        INSERT INTO leases (log_id, tree_id, node_id, epoch, component, tools, claimed_at)
        SELECT p_log, r.tree, r.node, r.epoch, r.component, ARRAY(SELECT json_array_elements_text(r.tools::json)), recorded
        FROM unnest(r_lease_op, r_lease_tree, r_lease_node, r_lease_epoch, r_lease_component, r_lease_tools)
            WITH ORDINALITY AS r(op, tree, node, epoch, component, tools, request)
        WHERE r.op = 1 AND outcomes[r.request] = 0;
    END IF;
    -- One by one, by its whole key: as one statement it becomes a walk over all leases of the log, since a table that is
    -- emptied as fast as it fills looks small to the planner.
    IF 3 = ANY (r_lease_op) THEN
        FOR i IN 1 .. n LOOP
            IF r_lease_op[i] = 3 AND outcomes[i] = 0 THEN
                DELETE FROM leases l WHERE l.log_id = p_log AND l.tree_id = r_lease_tree[i];
            END IF;
        END LOOP;
    END IF;

    FOR i IN 1 .. n LOOP
        actuals[i] := coalesce(actuals[i], head);
    END LOOP;
    SELECT max(p) INTO moved FROM unnest(positions) AS p;
    IF moved > head THEN
        UPDATE log_head h SET position = moved, recorded_at = recorded WHERE h.log_id = p_log;
        PERFORM pg_notify('daybook_log', p_log || ' ' || moved);
    END IF;
END $$;
