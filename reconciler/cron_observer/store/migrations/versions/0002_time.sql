-- Time: calendars, task groups, pauses, backfills, the history of plans, and many skipped slots as one row.

CREATE TABLE calendars (
    tenant_id UUID NOT NULL,
    calendar_uid UUID NOT NULL,
    project_id UUID NOT NULL,
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
    digest TEXT NOT NULL,
    CONSTRAINT a_calendar_is_its_uid PRIMARY KEY (tenant_id, calendar_uid),
    CONSTRAINT a_calendar_name_is_used_once UNIQUE (tenant_id, project_id, name),
    CONSTRAINT a_calendar_has_a_source FOREIGN KEY(tenant_id, source_id) REFERENCES sources (tenant_id, source_id),
    CONSTRAINT a_calendar_sync_is_known CHECK (sync IN ('SYNCED', 'KEPT_LAST_GOOD', 'HELD'))
);

CREATE INDEX calendars_by_source ON calendars (tenant_id, source_id, path);

CREATE TABLE calendar_contents (
    tenant_id UUID NOT NULL,
    digest TEXT NOT NULL,
    content JSONB NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT a_content_is_its_digest PRIMARY KEY (tenant_id, digest)
);

CREATE TABLE task_groups (
    tenant_id UUID NOT NULL,
    group_uid UUID NOT NULL,
    project_id UUID NOT NULL,
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
    CONSTRAINT a_group_is_its_uid PRIMARY KEY (tenant_id, group_uid),
    CONSTRAINT a_group_name_is_used_once UNIQUE (tenant_id, project_id, name),
    CONSTRAINT a_group_has_a_source FOREIGN KEY(tenant_id, source_id) REFERENCES sources (tenant_id, source_id),
    CONSTRAINT a_group_sync_is_known CHECK (sync IN ('SYNCED', 'KEPT_LAST_GOOD', 'HELD'))
);

CREATE INDEX task_groups_by_source ON task_groups (tenant_id, source_id, path);

CREATE TABLE plan_history (
    tenant_id UUID NOT NULL,
    task_uid UUID NOT NULL,
    generation BIGINT NOT NULL,
    active BOOLEAN NOT NULL,
    schedule JSONB NOT NULL,
    effective_from TIMESTAMP WITH TIME ZONE NOT NULL,
    tzdata_version TEXT,
    holidays_version TEXT,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT a_planned_generation_is_its_number PRIMARY KEY (tenant_id, task_uid, generation),
    CONSTRAINT a_planned_generation_has_a_task FOREIGN KEY(tenant_id, task_uid) REFERENCES tasks (tenant_id, task_uid)
);

CREATE TABLE pauses (
    tenant_id UUID NOT NULL,
    pause_id UUID NOT NULL,
    task_uid UUID NOT NULL,
    since TIMESTAMP WITH TIME ZONE NOT NULL,
    until TIMESTAMP WITH TIME ZONE,
    reason TEXT,
    author TEXT NOT NULL,
    on_resume TEXT NOT NULL,
    ended_at TIMESTAMP WITH TIME ZONE,
    ended_by TEXT,
    followed_at TIMESTAMP WITH TIME ZONE,
    runs INTEGER,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT a_pause_is_its_id PRIMARY KEY (tenant_id, pause_id),
    CONSTRAINT a_pause_has_a_task FOREIGN KEY(tenant_id, task_uid) REFERENCES tasks (tenant_id, task_uid),
    CONSTRAINT on_resume_is_known CHECK (on_resume IN ('skip', 'last', 'all'))
);

CREATE UNIQUE INDEX one_pause_is_in_force ON pauses (tenant_id, task_uid) WHERE ended_at IS NULL;

CREATE INDEX pauses_by_end ON pauses (tenant_id, until) WHERE ended_at IS NULL AND until IS NOT NULL;

CREATE INDEX pauses_of_task ON pauses (tenant_id, task_uid, since);

CREATE INDEX pauses_to_follow ON pauses (tenant_id, task_uid) WHERE followed_at IS NULL;

CREATE TABLE backfills (
    tenant_id UUID NOT NULL,
    backfill_id UUID NOT NULL,
    task_uid UUID NOT NULL,
    from_at TIMESTAMP WITH TIME ZONE NOT NULL,
    to_at TIMESTAMP WITH TIME ZONE NOT NULL,
    selected TEXT NOT NULL,
    sorted TEXT NOT NULL,
    max_parallel INTEGER NOT NULL,
    runs INTEGER NOT NULL,
    author TEXT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT a_backfill_is_its_id PRIMARY KEY (tenant_id, backfill_id),
    CONSTRAINT a_backfill_has_a_task FOREIGN KEY(tenant_id, task_uid) REFERENCES tasks (tenant_id, task_uid),
    CONSTRAINT a_selection_is_known CHECK (selected IN ('missing', 'failed', 'all')),
    CONSTRAINT an_order_is_known CHECK (sorted IN ('oldest_first', 'newest_first'))
);

CREATE TABLE slot_ranges (
    tenant_id UUID NOT NULL,
    task_uid UUID NOT NULL,
    first_at TIMESTAMP WITH TIME ZONE NOT NULL,
    last_at TIMESTAMP WITH TIME ZONE NOT NULL,
    project_id UUID NOT NULL,
    status TEXT NOT NULL,
    reason TEXT NOT NULL,
    slots BIGINT NOT NULL,
    quarters INTEGER[] NOT NULL,
    timezone TEXT NOT NULL,
    tzdata_version TEXT,
    holidays_version TEXT,
    plan_generation BIGINT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT a_range_is_its_first_slot PRIMARY KEY (tenant_id, task_uid, first_at),
    CONSTRAINT a_range_has_a_task FOREIGN KEY(tenant_id, task_uid) REFERENCES tasks (tenant_id, task_uid),
    CONSTRAINT a_range_never_ran CHECK (status IN ('SKIPPED', 'MISSED')),
    CONSTRAINT a_range_holds_slots CHECK (slots > 0 AND first_at <= last_at),
    CONSTRAINT a_range_counts_the_quarters_of_a_day CHECK (cardinality(quarters) = 96)
);

CREATE INDEX slot_ranges_by_time ON slot_ranges (tenant_id, last_at);

ALTER TABLE task_plan
    ADD COLUMN holidays_version TEXT,
    ADD COLUMN skip_reason TEXT,
    ADD COLUMN skip_count BIGINT;

-- closes_at: when the window of its task group ends; held_at: since when it has waited for a place that was taken,
-- so that catch-up does not judge it; repeats: the slot that a backfill, or the end of a pause, runs again.
ALTER TABLE executions
    ADD COLUMN holidays_version TEXT,
    ADD COLUMN moved_by TEXT,
    ADD COLUMN closes_at TIMESTAMP WITH TIME ZONE,
    ADD COLUMN held_at TIMESTAMP WITH TIME ZONE,
    ADD COLUMN repeats UUID,
    ADD COLUMN backfill_id UUID;

CREATE INDEX executions_that_repeat ON executions (tenant_id, task_uid, nominal_at) WHERE repeats IS NOT NULL;

-- What waits for a place is out of the way of claims.
DROP INDEX executions_to_claim;

CREATE INDEX executions_to_claim ON executions (tenant_id, queue, priority DESC, available_at)
    WHERE status = 'PENDING' AND held_at IS NULL;

CREATE INDEX executions_held ON executions (tenant_id, task_uid, backfill_id, available_at)
    WHERE status = 'PENDING' AND held_at IS NOT NULL;

-- What was planned before this migration is where the history of plans begins.
INSERT INTO plan_history (tenant_id, task_uid, generation, active, schedule, effective_from, tzdata_version, created_at)
SELECT tenant_id, task_uid, generation, active, schedule, effective_from, tzdata_version, effective_from FROM task_plan;

DO $policies$
DECLARE
    relation text;
BEGIN
    FOREACH relation IN ARRAY ARRAY[
        'calendars', 'calendar_contents', 'task_groups', 'plan_history', 'pauses', 'backfills', 'slot_ranges'
    ] LOOP
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

GRANT SELECT ON calendars, calendar_contents, task_groups, plan_history, pauses, backfills, slot_ranges
    TO cron_observer_api, cron_observer_reconciler, cron_observer_scheduler;
GRANT INSERT, UPDATE, DELETE ON calendars, task_groups TO cron_observer_reconciler;
GRANT INSERT ON calendar_contents TO cron_observer_reconciler;
-- Who writes a task holds what it refers to (FOR SHARE), and that takes the right to change some column.
GRANT UPDATE (updated_at) ON calendars, task_groups TO cron_observer_api;
GRANT INSERT ON plan_history TO cron_observer_api, cron_observer_reconciler, cron_observer_scheduler;
GRANT INSERT, UPDATE, DELETE ON slot_ranges TO cron_observer_api, cron_observer_reconciler, cron_observer_scheduler;
GRANT INSERT, UPDATE ON pauses TO cron_observer_api;
GRANT UPDATE (ended_at, ended_by, followed_at, runs) ON pauses TO cron_observer_scheduler;
GRANT INSERT ON backfills TO cron_observer_api;
GRANT INSERT ON audit_log TO cron_observer_scheduler;
