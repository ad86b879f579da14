-- GitOps: how a source is applied, what it waits for, who suspended it; Defaults and Projects; approvals, commit
-- statuses, deliveries of webhooks that were seen; a task that is taken out of its manifest's hands.

-- refused: the target, and under which rules it was judged, that was not applied as a whole; it is not judged again.
-- held: the removals that wait for an approval, whose hash is plan_hash. checked_at: the last comparison with all
-- that is known, instead of the difference to what was applied. asked_by: who asked for a look that nobody has begun;
-- taken_for: the same of the look that somebody has begun, and not ended. fetched_bytes: all that fetches have brought.
ALTER TABLE sources
    ADD COLUMN failure_policy TEXT DEFAULT 'isolate' NOT NULL,
    ADD COLUMN observed_seq BIGINT DEFAULT 0 NOT NULL,
    ADD COLUMN refused TEXT,
    ADD COLUMN plan_hash TEXT,
    ADD COLUMN held JSONB,
    ADD COLUMN checked_at TIMESTAMP WITH TIME ZONE,
    ADD COLUMN suspended_at TIMESTAMP WITH TIME ZONE,
    ADD COLUMN suspended_until TIMESTAMP WITH TIME ZONE,
    ADD COLUMN suspended_by TEXT,
    ADD COLUMN suspend_reason TEXT,
    ADD COLUMN asked_by TEXT,
    ADD COLUMN taken_for TEXT,
    ADD COLUMN fetched_bytes BIGINT DEFAULT 0 NOT NULL,
    DROP CONSTRAINT a_source_mode_is_known,
    ADD CONSTRAINT a_source_mode_is_known CHECK (mode IN ('enforce', 'observe')),
    ADD CONSTRAINT a_failure_policy_is_known CHECK (failure_policy IN ('isolate', 'atomic')),
    ADD CONSTRAINT a_suspension_has_an_author CHECK ((suspended_at IS NULL) = (suspended_by IS NULL)),
    ADD CONSTRAINT who_asks_is_known CHECK (
        asked_by IN ('neighbour', 'push', 'detach', 'resume', 'manual', 'approval')),
    ADD CONSTRAINT what_it_is_taken_for_is_known CHECK (
        taken_for IN ('neighbour', 'push', 'detach', 'resume', 'manual', 'approval'));

-- Which of two words a run is told by when several asked for it; null for nobody. People count for more than machines.
CREATE FUNCTION stronger_asker(one text, other text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
    $$ SELECT w FROM unnest(ARRAY['neighbour', 'push', 'detach', 'resume', 'manual', 'approval'])
        WITH ORDINALITY AS known (w, rank) WHERE w IN (one, other) ORDER BY rank DESC LIMIT 1 $$;

ALTER TABLE sync_runs
    ADD COLUMN strategy TEXT,
    ADD COLUMN plan_hash TEXT,
    ADD COLUMN held JSONB,
    ADD COLUMN timings JSONB,
    ADD CONSTRAINT a_run_trigger_is_known CHECK (
        trigger IN ('poll', 'neighbour', 'push', 'detach', 'resume', 'manual', 'approval')),
    DROP CONSTRAINT a_run_outcome_is_known,
    ADD CONSTRAINT a_run_outcome_is_known CHECK (
        outcome IN ('running', 'applied', 'unchanged', 'observed', 'refused', 'failed', 'abandoned'));

-- Documents that say what others are made of: Defaults, and the Project of a source.
CREATE TABLE layers (
    tenant_id UUID NOT NULL,
    layer_uid UUID NOT NULL,
    project_id UUID NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    source_id UUID NOT NULL,
    path TEXT NOT NULL,
    document INTEGER NOT NULL,
    line INTEGER NOT NULL,
    commit TEXT,
    author TEXT,
    subject TEXT,
    committed_at TIMESTAMP WITH TIME ZONE,
    spec JSONB NOT NULL,
    spec_hash BYTEA NOT NULL,
    version BIGINT NOT NULL,
    sync TEXT NOT NULL,
    removed_at TIMESTAMP WITH TIME ZONE,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT a_layer_is_its_uid PRIMARY KEY (tenant_id, layer_uid),
    CONSTRAINT a_layer_name_is_used_once UNIQUE (tenant_id, project_id, kind, name),
    CONSTRAINT a_layer_has_a_source FOREIGN KEY(tenant_id, source_id) REFERENCES sources (tenant_id, source_id),
    CONSTRAINT a_layer_kind_is_known CHECK (kind IN ('Defaults', 'Project')),
    CONSTRAINT a_layer_sync_is_known CHECK (sync IN ('SYNCED', 'KEPT_LAST_GOOD', 'HELD'))
);

CREATE INDEX layers_by_source ON layers (tenant_id, source_id, path);

CREATE TABLE approvals (
    tenant_id UUID NOT NULL,
    approval_id UUID NOT NULL,
    source_id UUID NOT NULL,
    plan_hash TEXT NOT NULL,
    reason TEXT,
    actor TEXT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    used_at TIMESTAMP WITH TIME ZONE,
    run_id UUID,
    CONSTRAINT an_approval_is_its_id PRIMARY KEY (tenant_id, approval_id),
    CONSTRAINT an_approval_has_a_source FOREIGN KEY(tenant_id, source_id) REFERENCES sources (tenant_id, source_id)
);

-- A plan is approved once; carried out and proposed again, it needs a new consent.
CREATE UNIQUE INDEX approvals_unused ON approvals (tenant_id, source_id, plan_hash) WHERE used_at IS NULL;

-- One row for each commit and context; a newer state of the same takes its place until it was sent.
CREATE TABLE commit_statuses (
    tenant_id UUID NOT NULL,
    source_id UUID NOT NULL,
    commit TEXT NOT NULL,
    context TEXT NOT NULL,
    state TEXT NOT NULL,
    description TEXT NOT NULL,
    run_id UUID,
    due_at TIMESTAMP WITH TIME ZONE NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    sent_at TIMESTAMP WITH TIME ZONE,
    gave_up_at TIMESTAMP WITH TIME ZONE,
    attempts INTEGER DEFAULT 0 NOT NULL,
    error TEXT,
    CONSTRAINT a_status_is_of_a_commit PRIMARY KEY (tenant_id, source_id, commit, context),
    CONSTRAINT a_commit_status_has_a_source FOREIGN KEY(tenant_id, source_id)
        REFERENCES sources (tenant_id, source_id),
    CONSTRAINT a_commit_state_is_known CHECK (state IN ('pending', 'success', 'failure', 'error'))
);

CREATE INDEX commit_statuses_to_send ON commit_statuses (tenant_id, due_at)
    WHERE sent_at IS NULL AND gave_up_at IS NULL;

CREATE TABLE hook_deliveries (
    tenant_id UUID NOT NULL,
    source_id UUID NOT NULL,
    delivery TEXT NOT NULL,
    received_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT a_delivery_is_its_id PRIMARY KEY (tenant_id, source_id, delivery),
    CONSTRAINT a_delivery_has_a_source FOREIGN KEY(tenant_id, source_id) REFERENCES sources (tenant_id, source_id)
);

CREATE INDEX hook_deliveries_by_age ON hook_deliveries (tenant_id, received_at);

-- What is out of order in a source, which is little of it: looked up with every change.
CREATE INDEX tasks_out_of_sync ON tasks (tenant_id, source_id)
    WHERE sync IN ('KEPT_LAST_GOOD', 'HELD') AND removed_at IS NULL;
CREATE INDEX manifest_files_in_trouble ON manifest_files (tenant_id, source_id) WHERE state <> 'ok';

-- The tombstones that are old enough to be purged.
CREATE INDEX tasks_removed ON tasks (tenant_id, removed_at) WHERE removed_at IS NOT NULL AND deleted_at IS NULL;

DO $policies$
DECLARE
    relation text;
BEGIN
    FOREACH relation IN ARRAY ARRAY['layers', 'approvals', 'commit_statuses', 'hook_deliveries'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', relation);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', relation);
        EXECUTE format(
            'CREATE POLICY the_owner_migrates ON %I TO cron_observer_owner USING (true) WITH CHECK (true)', relation);
        EXECUTE format(
            'CREATE POLICY only_own_tenants ON %I AS RESTRICTIVE TO cron_observer_api, cron_observer_reconciler, '
            'cron_observer_scheduler USING (tenant_id = ANY (app_tenants())) '
            'WITH CHECK (tenant_id = ANY (app_tenants()))', relation);
        EXECUTE format(
            'CREATE POLICY loops_read_and_write ON %I TO cron_observer_reconciler, cron_observer_scheduler '
            'USING (true) WITH CHECK (true)', relation);
        EXECUTE format(
            'CREATE POLICY the_api_reads_and_writes ON %I TO cron_observer_api USING (true) WITH CHECK (true)',
            relation);
    END LOOP;
END
$policies$;

GRANT SELECT ON layers, approvals, commit_statuses, hook_deliveries
    TO cron_observer_api, cron_observer_reconciler, cron_observer_scheduler;
GRANT INSERT, UPDATE, DELETE ON layers, commit_statuses TO cron_observer_reconciler;
GRANT DELETE ON sync_runs, hook_deliveries, approvals TO cron_observer_reconciler;
GRANT UPDATE (used_at, run_id) ON approvals TO cron_observer_reconciler;
GRANT INSERT ON approvals, hook_deliveries TO cron_observer_api;
GRANT UPDATE (suspended_at, suspended_until, suspended_by, suspend_reason, asked_by) ON sources TO cron_observer_api;

-- Takes a living task out of its manifest's hands: the API owns it from then on. The API's role may not write what a
-- manifest owns, so the work runs with the owner's rights, and writes its own revision and audit entry. The file is
-- read again, which says that its task is somebody else's. Returns false when no manifest owns such a task.
CREATE FUNCTION detach_task(tenant uuid, task uuid, why text, who text, audit uuid, now timestamptz) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $detach$
DECLARE
    was record;
BEGIN
    IF (tenant = ANY (app_tenants())) IS NOT TRUE THEN
        RAISE insufficient_privilege USING MESSAGE = 'the tenant is not of this request';
    END IF;
    SELECT t.name, t.source_id, t.path, t.line, t.commit, t.generation, s.name AS source, p.name AS project INTO was
    FROM tasks AS t
    JOIN sources AS s ON s.tenant_id = t.tenant_id AND s.source_id = t.source_id
    JOIN projects AS p ON p.tenant_id = t.tenant_id AND p.project_id = t.project_id
    WHERE t.tenant_id = tenant AND t.task_uid = task AND t.owner = 'manifest'
      AND t.removed_at IS NULL AND t.deleting_at IS NULL AND t.deleted_at IS NULL
    FOR UPDATE OF t;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    UPDATE tasks AS t SET owner = 'api', source_id = NULL, path = NULL, document = NULL, line = NULL, commit = NULL,
        author = who, subject = NULL, committed_at = NULL, sync = NULL, generation = was.generation + 1,
        updated_at = now
    WHERE t.tenant_id = tenant AND t.task_uid = task;
    INSERT INTO task_revisions (tenant_id, task_uid, generation, owner, action, spec, author, created_at)
    SELECT t.tenant_id, t.task_uid, t.generation, 'api', 'detach', t.spec, who, now
    FROM tasks AS t WHERE t.tenant_id = tenant AND t.task_uid = task;
    UPDATE task_plan AS t SET owner = 'api' WHERE t.tenant_id = tenant AND t.task_uid = task;
    -- of a file from which nothing is in force any more there is no last good version
    UPDATE manifest_files AS f SET state = CASE WHEN f.state = 'ok' THEN 'invalid' ELSE f.state END,
        good_blob = CASE WHEN other.there THEN f.good_blob END, good_text = CASE WHEN other.there THEN f.good_text END,
        good_commit = CASE WHEN other.there THEN f.good_commit END
    FROM (SELECT EXISTS (
        SELECT FROM tasks AS o
        WHERE o.tenant_id = tenant AND o.source_id = was.source_id AND o.path = was.path
          AND o.removed_at IS NULL) AS there) AS other
    WHERE f.tenant_id = tenant AND f.source_id = was.source_id AND f.path = was.path;
    DELETE FROM sync_findings AS f
    WHERE f.tenant_id = tenant AND f.source_id = was.source_id AND f.path = was.path;
    -- what a pass has planned without knowing of this is written no more: observed_seq is part of its fence
    UPDATE sources AS s SET requested_seq = s.requested_seq + 1, observed_seq = s.observed_seq + 1,
        asked_by = stronger_asker(s.asked_by, 'detach'),
        counts = CASE WHEN s.counts ? 'tasks'
            THEN jsonb_set(s.counts, '{tasks}', to_jsonb((s.counts ->> 'tasks')::bigint - 1)) ELSE s.counts END
    WHERE s.tenant_id = tenant AND s.source_id = was.source_id;
    INSERT INTO audit_log (tenant_id, audit_id, at, actor, action, target, data)
    VALUES (tenant, audit, now, who, 'task.detach', format('task:%s/%s', was.project, was.name), jsonb_build_object(
        'from', format('source:%s', was.source), 'path', was.path, 'line', was.line, 'commit', was.commit,
        'reason', why));
    RETURN true;
END
$detach$;

REVOKE ALL ON FUNCTION detach_task(uuid, uuid, text, text, uuid, timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION detach_task(uuid, uuid, text, text, uuid, timestamptz) TO cron_observer_api;

-- Takes new statistics of what a large apply writes, at once: until then, statements about one task would look through
-- all of them. Whoever applies owns none of the tables.
CREATE FUNCTION analyze_applied() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $analyze$
BEGIN
    -- what statements look for and join by; documents are wide, and nothing is planned by what they say
    ANALYZE tasks (tenant_id, task_uid, project_id, source_id, path, name, live_name, owner, sync, labels, removed_at,
            deleting_at, deleted_at),
        task_plan (tenant_id, task_uid, project_id, owner, generation, active, queue, planned_until, plan_due_at),
        task_revisions (tenant_id, task_uid, generation),
        manifest_files (tenant_id, source_id, path, state, commit),
        sync_findings (tenant_id, source_id, path, n, severity, code);
END
$analyze$;

REVOKE ALL ON FUNCTION analyze_applied() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION analyze_applied() TO cron_observer_reconciler;
