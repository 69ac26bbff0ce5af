-- A node that stood still between its heartbeat and its claim must not take its own runs over from itself: what it was
-- in the middle of would count as lost. As before otherwise.
CREATE OR REPLACE FUNCTION claim_leases(p_log bigint, p_node text, p_components text[], p_tools text[], p_limit bigint)
RETURNS TABLE (tree text, new_epoch bigint, of_component text) LANGUAGE plpgsql AS $$
BEGIN
    -- Most calls find nothing, and need not stop the log for it.
    IF NOT EXISTS (
        SELECT FROM leases l LEFT JOIN nodes n ON n.node_id = l.node_id
        WHERE l.log_id = p_log AND l.node_id IS DISTINCT FROM p_node
            AND (n.node_id IS NULL OR n.heartbeat_at < clock_timestamp() - interval '6 seconds')
            AND l.component = ANY (p_components) AND l.tools <@ p_tools
    ) THEN
        RETURN;
    END IF;
    PERFORM FROM log_head h WHERE h.log_id = p_log FOR UPDATE;
    RETURN QUERY
    UPDATE leases l SET node_id = p_node, epoch = l.epoch + 1, claimed_at = clock_timestamp()
    WHERE l.log_id = p_log AND l.tree_id IN (
        SELECT o.tree_id FROM leases o LEFT JOIN nodes n ON n.node_id = o.node_id
        WHERE o.log_id = p_log AND o.node_id IS DISTINCT FROM p_node
            AND (n.node_id IS NULL OR n.heartbeat_at < clock_timestamp() - interval '6 seconds')
            AND o.component = ANY (p_components) AND o.tools <@ p_tools
        ORDER BY o.claimed_at, o.tree_id LIMIT p_limit FOR UPDATE OF o SKIP LOCKED
    )
    RETURNING l.tree_id, l.epoch, l.component;
END $$;
