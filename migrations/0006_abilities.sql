-- What each node can run, so that any node knows whether a run can go on somewhere. A node of an older version does not
-- say, and counts as one that can run everything.
ALTER TABLE nodes ADD COLUMN components text[], ADD COLUMN models text[], ADD COLUMN tools text[];

-- Claims one run tree that no living node holds, whatever it needs: for a run that is only to be ended. As with
-- claim_leases, no append may be in the middle of checking the lease meanwhile.
CREATE FUNCTION claim_lease(p_log bigint, p_node text, p_tree text)
RETURNS TABLE (tree text, new_epoch bigint, of_component text) LANGUAGE plpgsql AS $$
BEGIN
    -- Most runs have their node, and need not stop the log for it.
    IF NOT EXISTS (
        SELECT FROM leases l LEFT JOIN nodes n ON n.node_id = l.node_id
        WHERE l.log_id = p_log AND l.tree_id = p_tree AND l.node_id IS DISTINCT FROM p_node
            AND (n.node_id IS NULL OR n.heartbeat_at < clock_timestamp() - interval '6 seconds')
    ) THEN
        RETURN;
    END IF;
    PERFORM FROM log_head h WHERE h.log_id = p_log FOR UPDATE;
    RETURN QUERY
    UPDATE leases l SET node_id = p_node, epoch = l.epoch + 1, claimed_at = clock_timestamp()
    WHERE l.log_id = p_log AND l.tree_id = p_tree AND l.node_id IS DISTINCT FROM p_node AND NOT EXISTS (
        SELECT FROM nodes n
        WHERE n.node_id = l.node_id AND n.heartbeat_at >= clock_timestamp() - interval '6 seconds'
    )
    RETURNING l.tree_id, l.epoch, l.component;
END $$;
