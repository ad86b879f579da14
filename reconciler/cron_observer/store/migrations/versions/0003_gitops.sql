-- GitOps: how a source is applied, what it waits for, who suspended it; Defaults and Projects; approvals, commit
-- statuses, deliveries of webhooks that were seen; a task that is taken out of its manifest's hands.

-- refused: the target, and under which rules it was judged, that was not applied as a whole; it is not judged again.
-- held: the removals that wait for an approval, whose hash is plan_hash. checked_at: the last comparison with all
-- that is known, instead of the difference to what was applied.
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
    DROP CONSTRAINT a_source_mode_is_known,
    ADD CONSTRAINT a_source_mode_is_known CHECK (mode IN ('enforce', 'observe')),
    ADD CONSTRAINT a_failure_policy_is_known CHECK (failure_policy IN ('isolate', 'atomic')),
    ADD CONSTRAINT a_suspension_has_an_author CHECK ((suspended_at IS NULL) = (suspended_by IS NULL));

ALTER TABLE sync_runs
    ADD COLUMN strategy TEXT,
    ADD COLUMN plan_hash TEXT,
    ADD COLUMN held JSONB,
    ADD COLUMN timings JSONB,
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
GRANT UPDATE (suspended_at, suspended_until, suspended_by, suspend_reason) ON sources TO cron_observer_api;
