-- The first schema. Every key begins with tenant_id; executions and their children share weekly partitions by id.

CREATE TABLE tenants (
    tenant_id UUID NOT NULL,
    name TEXT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT a_tenant_is_its_id PRIMARY KEY (tenant_id)
);

CREATE TABLE projects (
    tenant_id UUID NOT NULL,
    project_id UUID NOT NULL,
    name TEXT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT a_project_is_its_id PRIMARY KEY (tenant_id, project_id),
    CONSTRAINT a_project_name_is_used_once UNIQUE (tenant_id, name),
    CONSTRAINT a_project_has_a_tenant FOREIGN KEY(tenant_id) REFERENCES tenants (tenant_id)
);

CREATE TABLE api_keys (
    tenant_id UUID NOT NULL,
    key_id TEXT NOT NULL,
    secret_hash BYTEA NOT NULL,
    name TEXT NOT NULL,
    scopes TEXT[] NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    created_by TEXT,
    last_used_at TIMESTAMP WITH TIME ZONE,
    revoked_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT a_key_is_its_prefix PRIMARY KEY (tenant_id, key_id),
    CONSTRAINT a_key_has_a_tenant FOREIGN KEY(tenant_id) REFERENCES tenants (tenant_id),
    CONSTRAINT scopes_are_known CHECK (scopes <@ ARRAY['read', 'report', 'trigger', 'tasks:write', 'admin']::text[])
);

CREATE INDEX api_keys_by_secret ON api_keys (secret_hash);

CREATE TABLE sources (
    tenant_id UUID NOT NULL,
    source_id UUID NOT NULL,
    project_id UUID NOT NULL,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    url TEXT NOT NULL,
    ref TEXT,
    paths TEXT[] DEFAULT '{}' NOT NULL,
    ignore TEXT[] DEFAULT '{}' NOT NULL,
    environment TEXT,
    mode TEXT DEFAULT 'enforce' NOT NULL,
    poll_seconds DOUBLE PRECISION NOT NULL,
    requested_seq BIGINT DEFAULT 0 NOT NULL,
    handled_seq BIGINT DEFAULT 0 NOT NULL,
    observed_commit TEXT,
    observed_at TIMESTAMP WITH TIME ZONE,
    applied_commit TEXT,
    applied_seq BIGINT DEFAULT 0 NOT NULL,
    applied_at TIMESTAMP WITH TIME ZONE,
    validator_version TEXT,
    next_poll_at TIMESTAMP WITH TIME ZONE NOT NULL,
    failures INTEGER DEFAULT 0 NOT NULL,
    lease_owner TEXT,
    lease_epoch BIGINT DEFAULT 0 NOT NULL,
    lease_until TIMESTAMP WITH TIME ZONE,
    first_pass_at TIMESTAMP WITH TIME ZONE,
    conditions JSONB DEFAULT '{}' NOT NULL,
    counts JSONB DEFAULT '{}' NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT a_source_is_its_id PRIMARY KEY (tenant_id, source_id),
    CONSTRAINT a_source_name_is_used_once UNIQUE (tenant_id, name),
    CONSTRAINT a_source_has_a_project FOREIGN KEY(tenant_id, project_id) REFERENCES projects (tenant_id, project_id),
    CONSTRAINT a_source_is_git_or_a_folder CHECK (kind IN ('git', 'folder')),
    CONSTRAINT a_source_mode_is_known CHECK (mode IN ('enforce'))
);

CREATE TABLE manifest_files (
    tenant_id UUID NOT NULL,
    source_id UUID NOT NULL,
    path TEXT NOT NULL,
    blob TEXT NOT NULL,
    state TEXT NOT NULL,
    documents INTEGER NOT NULL,
    commit TEXT,
    good_blob TEXT,
    good_text TEXT,
    good_commit TEXT,
    CONSTRAINT a_file_is_its_path PRIMARY KEY (tenant_id, source_id, path),
    CONSTRAINT a_file_has_a_source FOREIGN KEY(tenant_id, source_id) REFERENCES sources (tenant_id, source_id),
    CONSTRAINT a_file_state_is_known CHECK (state IN ('ok', 'invalid', 'unparseable'))
);

CREATE TABLE tasks (
    tenant_id UUID NOT NULL,
    task_uid UUID NOT NULL,
    project_id UUID NOT NULL,
    name TEXT NOT NULL,
    seed TEXT NOT NULL,
    owner TEXT NOT NULL,
    source_id UUID,
    path TEXT,
    document INTEGER,
    line INTEGER,
    commit TEXT,
    author TEXT,
    subject TEXT,
    committed_at TIMESTAMP WITH TIME ZONE,
    spec JSONB NOT NULL,
    spec_hash BYTEA NOT NULL,
    generation INTEGER NOT NULL,
    labels JSONB DEFAULT '{}' NOT NULL,
    annotations JSONB DEFAULT '{}' NOT NULL,
    sync TEXT,
    quarantine TEXT,
    removed_at TIMESTAMP WITH TIME ZONE,
    deleting_at TIMESTAMP WITH TIME ZONE,
    deleted_at TIMESTAMP WITH TIME ZONE,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL,
    live_name TEXT GENERATED ALWAYS AS (CASE WHEN deleted_at IS NULL THEN name END) STORED,
    CONSTRAINT a_task_is_its_uid PRIMARY KEY (tenant_id, task_uid),
    CONSTRAINT a_live_name_is_used_once UNIQUE (tenant_id, project_id, live_name),
    CONSTRAINT a_task_has_a_project FOREIGN KEY(tenant_id, project_id) REFERENCES projects (tenant_id, project_id),
    CONSTRAINT an_owned_task_has_a_source FOREIGN KEY(tenant_id, source_id) REFERENCES sources (tenant_id, source_id),
    CONSTRAINT an_owner_is_a_manifest_or_the_api CHECK (owner IN ('manifest', 'api')),
    CONSTRAINT manifest_owned_iff_it_has_a_source CHECK ((owner = 'manifest') = (source_id IS NOT NULL)),
    CONSTRAINT manifest_owned_iff_it_has_a_path CHECK ((owner = 'manifest') = (path IS NOT NULL)),
    CONSTRAINT sync_is_known CHECK (sync IN ('SYNCED', 'KEPT_LAST_GOOD', 'HELD'))
);

CREATE INDEX tasks_by_label ON tasks USING gin (labels jsonb_path_ops);

CREATE INDEX tasks_by_source ON tasks (tenant_id, source_id, path);

CREATE INDEX tasks_deleting ON tasks (tenant_id, deleting_at) WHERE deleting_at IS NOT NULL AND deleted_at IS NULL;

CREATE TABLE task_revisions (
    tenant_id UUID NOT NULL,
    task_uid UUID NOT NULL,
    generation INTEGER NOT NULL,
    owner TEXT NOT NULL,
    action TEXT NOT NULL,
    spec JSONB NOT NULL,
    source TEXT,
    commit TEXT,
    author TEXT,
    subject TEXT,
    committed_at TIMESTAMP WITH TIME ZONE,
    path TEXT,
    line INTEGER,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT a_revision_is_its_generation PRIMARY KEY (tenant_id, task_uid, generation),
    CONSTRAINT a_revision_has_a_task FOREIGN KEY(tenant_id, task_uid) REFERENCES tasks (tenant_id, task_uid)
);

CREATE TABLE task_plan (
    tenant_id UUID NOT NULL,
    task_uid UUID NOT NULL,
    project_id UUID NOT NULL,
    owner TEXT NOT NULL,
    generation BIGINT NOT NULL,
    active BOOLEAN NOT NULL,
    schedule JSONB NOT NULL,
    queue TEXT NOT NULL,
    priority SMALLINT NOT NULL,
    start_deadline_seconds DOUBLE PRECISION,
    effective_from TIMESTAMP WITH TIME ZONE NOT NULL,
    planned_until TIMESTAMP WITH TIME ZONE NOT NULL,
    plan_due_at TIMESTAMP WITH TIME ZONE,
    next_fire_at TIMESTAMP WITH TIME ZONE,
    tzdata_version TEXT,
    CONSTRAINT a_task_has_one_plan PRIMARY KEY (tenant_id, task_uid),
    CONSTRAINT a_plan_has_a_task FOREIGN KEY(tenant_id, task_uid) REFERENCES tasks (tenant_id, task_uid)
)
 WITH (fillfactor = 80);

CREATE INDEX task_plan_due ON task_plan (tenant_id, plan_due_at) WHERE plan_due_at IS NOT NULL;

CREATE TABLE executions (
    tenant_id UUID NOT NULL,
    id UUID NOT NULL,
    project_id UUID NOT NULL,
    task_uid UUID NOT NULL,
    status TEXT NOT NULL,
    reason TEXT,
    trigger TEXT NOT NULL,
    nominal_at TIMESTAMP WITH TIME ZONE,
    nominal_local TIMESTAMP WITHOUT TIME ZONE,
    nominal_fold SMALLINT,
    timezone TEXT,
    tzdata_version TEXT,
    fire_at TIMESTAMP WITH TIME ZONE NOT NULL,
    available_at TIMESTAMP WITH TIME ZONE NOT NULL,
    start_deadline TIMESTAMP WITH TIME ZONE,
    queue TEXT NOT NULL,
    priority SMALLINT NOT NULL,
    plan_generation BIGINT,
    generation INTEGER,
    forced BOOLEAN DEFAULT false NOT NULL,
    attempt INTEGER DEFAULT 0 NOT NULL,
    fence BIGINT DEFAULT 0 NOT NULL,
    lease_losses SMALLINT DEFAULT 0 NOT NULL,
    event_seq INTEGER DEFAULT 0 NOT NULL,
    worker TEXT,
    protocol TEXT,
    claimed_at TIMESTAMP WITH TIME ZONE,
    started_at TIMESTAMP WITH TIME ZONE,
    finished_at TIMESTAMP WITH TIME ZONE,
    lease_until TIMESTAMP WITH TIME ZONE,
    lease_seconds DOUBLE PRECISION,
    run_deadline TIMESTAMP WITH TIME ZONE,
    check_at TIMESTAMP WITH TIME ZONE,
    late BOOLEAN DEFAULT false NOT NULL,
    cancel_requested_at TIMESTAMP WITH TIME ZONE,
    cancel_by TEXT,
    cancel_reason TEXT,
    cancel_deadline TIMESTAMP WITH TIME ZONE,
    progress DOUBLE PRECISION,
    message TEXT,
    checkpoint JSONB,
    payload JSONB,
    result JSONB,
    exit_code INTEGER,
    error JSONB,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT an_execution_is_its_id PRIMARY KEY (tenant_id, id),
    CONSTRAINT a_status_is_known CHECK (status IN ('PENDING', 'RUNNING', 'FINISHED', 'FAILED', 'CANCELLED', 'SKIPPED', 'MISSED')),
    CONSTRAINT a_reason_is_known CHECK (reason IN ('exit_code', 'error', 'timed_out', 'lease_lost', 'cancelled', 'overlap', 'calendar', 'window', 'paused', 'too_late', 'no_worker', 'coalesced', 'dst_gap', 'task_deleted', 'observer_down', 'worker_skipped')),
    CONSTRAINT a_trigger_is_known CHECK (trigger IN ('schedule', 'catchup', 'manual', 'api', 'backfill', 'checkin')),
    CONSTRAINT leased_iff_running CHECK ((lease_until IS NOT NULL) = (status = 'RUNNING')),
    CONSTRAINT watched_iff_running CHECK ((check_at IS NOT NULL) = (status = 'RUNNING')),
    CONSTRAINT finished_iff_final CHECK ((finished_at IS NOT NULL) = (status IN ('CANCELLED', 'FAILED', 'FINISHED', 'MISSED', 'SKIPPED'))),
    CONSTRAINT a_priority_is_0_to_9 CHECK (priority BETWEEN 0 AND 9),
    CONSTRAINT fence_and_attempt_count_up CHECK (fence >= 0 AND attempt >= 0)
)
 PARTITION BY RANGE (id);

CREATE INDEX executions_by_fire_time ON executions (tenant_id, fire_at DESC, id DESC);

CREATE INDEX executions_of_task ON executions (tenant_id, task_uid, fire_at DESC, id DESC);

CREATE INDEX executions_to_check ON executions (tenant_id, check_at) WHERE status = 'RUNNING';

CREATE INDEX executions_to_claim ON executions (tenant_id, queue, priority DESC, available_at) WHERE status = 'PENDING';

CREATE INDEX executions_to_give_up ON executions (tenant_id, start_deadline) WHERE status = 'PENDING' AND fence > 0;

CREATE INDEX executions_waiting_of_task ON executions (tenant_id, task_uid, available_at) WHERE status = 'PENDING';

CREATE TABLE active_runs (
    tenant_id UUID NOT NULL,
    scope TEXT NOT NULL,
    n INTEGER NOT NULL,
    execution_id UUID NOT NULL,
    since TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT one_run_holds_a_place PRIMARY KEY (tenant_id, scope, n)
);

CREATE INDEX active_runs_of_execution ON active_runs (tenant_id, execution_id);

CREATE TABLE attempts (
    tenant_id UUID NOT NULL,
    execution_id UUID NOT NULL,
    fence BIGINT NOT NULL,
    attempt INTEGER NOT NULL,
    worker TEXT,
    claimed_at TIMESTAMP WITH TIME ZONE NOT NULL,
    started_at TIMESTAMP WITH TIME ZONE,
    ended_at TIMESTAMP WITH TIME ZONE,
    outcome TEXT,
    reason TEXT,
    exit_code INTEGER,
    error JSONB,
    digest BYTEA,
    late_outcome JSONB,
    log_base INTEGER DEFAULT 0 NOT NULL,
    log_lines INTEGER DEFAULT 0 NOT NULL,
    log_bytes BIGINT DEFAULT 0 NOT NULL,
    CONSTRAINT an_attempt_is_its_fence PRIMARY KEY (tenant_id, execution_id, fence),
    CONSTRAINT an_attempt_ends_with_an_outcome CHECK ((outcome IS NULL) = (ended_at IS NULL))
)
 PARTITION BY RANGE (execution_id);

CREATE TABLE execution_events (
    tenant_id UUID NOT NULL,
    execution_id UUID NOT NULL,
    seq INTEGER NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    type TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    fence BIGINT NOT NULL,
    status TEXT NOT NULL,
    reason TEXT,
    actor TEXT,
    data JSONB,
    CONSTRAINT an_event_is_its_number PRIMARY KEY (tenant_id, execution_id, seq)
)
 PARTITION BY RANGE (execution_id);

CREATE INDEX execution_events_by_time ON execution_events (tenant_id, at);

CREATE TABLE log_chunks (
    tenant_id UUID NOT NULL,
    execution_id UUID NOT NULL,
    fence BIGINT NOT NULL,
    first_seq INTEGER NOT NULL,
    lines INTEGER NOT NULL,
    raw_bytes INTEGER NOT NULL,
    levels SMALLINT NOT NULL,
    received_at TIMESTAMP WITH TIME ZONE NOT NULL,
    codec TEXT NOT NULL,
    data BYTEA NOT NULL,
    CONSTRAINT a_chunk_is_its_first_line PRIMARY KEY (tenant_id, execution_id, fence, first_seq),
    CONSTRAINT a_codec_is_known CHECK (codec IN ('zlib')),
    CONSTRAINT a_chunk_has_lines CHECK (lines > 0)
)
 PARTITION BY RANGE (execution_id);

CREATE TABLE claims (
    tenant_id UUID NOT NULL,
    claim_id UUID NOT NULL,
    worker TEXT NOT NULL,
    execution_ids UUID[] NOT NULL,
    fences BIGINT[] NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT a_claim_is_answered_once PRIMARY KEY (tenant_id, claim_id)
);

CREATE INDEX claims_by_expiry ON claims (tenant_id, expires_at);

CREATE TABLE idempotency_keys (
    tenant_id UUID NOT NULL,
    scope TEXT NOT NULL,
    key TEXT NOT NULL,
    request_hash BYTEA NOT NULL,
    status INTEGER,
    response JSONB,
    execution_id UUID,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT a_key_is_used_once_in_its_scope PRIMARY KEY (tenant_id, scope, key)
);

CREATE INDEX idempotency_keys_by_expiry ON idempotency_keys (tenant_id, expires_at);

CREATE TABLE sync_runs (
    tenant_id UUID NOT NULL,
    run_id UUID NOT NULL,
    source_id UUID NOT NULL,
    trigger TEXT NOT NULL,
    epoch BIGINT NOT NULL,
    from_commit TEXT,
    to_commit TEXT,
    author TEXT,
    subject TEXT,
    committed_at TIMESTAMP WITH TIME ZONE,
    outcome TEXT NOT NULL,
    counts JSONB DEFAULT '{}' NOT NULL,
    error TEXT,
    started_at TIMESTAMP WITH TIME ZONE NOT NULL,
    finished_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT a_run_is_its_id PRIMARY KEY (tenant_id, run_id),
    CONSTRAINT a_run_has_a_source FOREIGN KEY(tenant_id, source_id) REFERENCES sources (tenant_id, source_id),
    CONSTRAINT a_run_outcome_is_known CHECK (outcome IN ('running', 'applied', 'unchanged', 'failed', 'abandoned'))
);

CREATE INDEX sync_runs_of_source ON sync_runs (tenant_id, source_id, run_id DESC);

CREATE TABLE sync_findings (
    tenant_id UUID NOT NULL,
    source_id UUID NOT NULL,
    path TEXT NOT NULL,
    n INTEGER NOT NULL,
    run_id UUID,
    severity TEXT NOT NULL,
    code TEXT NOT NULL,
    line INTEGER,
    "column" INTEGER,
    end_line INTEGER,
    end_column INTEGER,
    pointer TEXT,
    kind TEXT,
    name TEXT,
    message TEXT NOT NULL,
    hint TEXT,
    excerpt TEXT,
    CONSTRAINT a_finding_is_its_place_in_a_file PRIMARY KEY (tenant_id, source_id, path, n),
    CONSTRAINT a_finding_has_a_source FOREIGN KEY(tenant_id, source_id) REFERENCES sources (tenant_id, source_id),
    CONSTRAINT a_severity_is_known CHECK (severity IN ('error', 'warning'))
);

CREATE TABLE audit_log (
    tenant_id UUID NOT NULL,
    audit_id UUID NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    target TEXT NOT NULL,
    data JSONB,
    CONSTRAINT an_audit_entry_is_its_id PRIMARY KEY (tenant_id, audit_id)
);

-- Who may see what: one request is one tenant, one batch is exactly its authenticated tenants. A missing or empty
-- setting means no rows. Forced, so that it binds the owner of the tables as well.

CREATE FUNCTION app_tenants() RETURNS uuid[] LANGUAGE sql STABLE PARALLEL SAFE AS
$$ SELECT string_to_array(nullif(current_setting('app.tenant_ids', true), ''), ',')::uuid[] $$;

DO $policies$
DECLARE
    relation text;
BEGIN
    FOREACH relation IN ARRAY ARRAY[
        'tenants', 'projects', 'api_keys', 'sources', 'manifest_files', 'tasks', 'task_revisions', 'task_plan',
        'executions', 'active_runs', 'attempts', 'execution_events', 'log_chunks', 'claims', 'idempotency_keys',
        'sync_runs', 'sync_findings', 'audit_log'
    ] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', relation);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', relation);
        EXECUTE format(
            'CREATE POLICY the_owner_migrates ON %I TO cron_observer_owner USING (true) WITH CHECK (true)', relation);
        EXECUTE format(
            'CREATE POLICY only_own_tenants ON %I AS RESTRICTIVE TO cron_observer_api, cron_observer_reconciler, '
            'cron_observer_scheduler USING (%s) WITH CHECK (tenant_id = ANY (app_tenants()))',
            relation,
            CASE relation
                -- the loops look up which tenants there are before they serve them
                WHEN 'tenants' THEN
                    'tenant_id = ANY (app_tenants()) OR current_user IN '
                    '(''cron_observer_reconciler'', ''cron_observer_scheduler'')'
                -- whoever knows the secret may learn whose it is: authentication comes before the tenant is known
                WHEN 'api_keys' THEN
                    'tenant_id = ANY (app_tenants()) OR secret_hash = '
                    'decode(nullif(current_setting(''app.secret_hash'', true), ''''), ''hex'')'
                ELSE 'tenant_id = ANY (app_tenants())'
            END);
        EXECUTE format(
            'CREATE POLICY loops_read_and_write ON %I TO cron_observer_reconciler, cron_observer_scheduler '
            'USING (true) WITH CHECK (true)', relation);
        IF relation NOT IN ('tasks', 'task_revisions', 'task_plan') THEN
            EXECUTE format(
                'CREATE POLICY the_api_reads_and_writes ON %I TO cron_observer_api USING (true) WITH CHECK (true)',
                relation);
        END IF;
    END LOOP;
    -- Ownership: what a manifest owns, the API's role can read and nothing else.
    FOREACH relation IN ARRAY ARRAY['tasks', 'task_revisions', 'task_plan'] LOOP
        EXECUTE format('CREATE POLICY the_api_reads ON %I FOR SELECT TO cron_observer_api USING (true)', relation);
        EXECUTE format(
            'CREATE POLICY the_api_adds_its_own ON %I FOR INSERT TO cron_observer_api WITH CHECK (owner = ''api'')',
            relation);
        EXECUTE format(
            'CREATE POLICY the_api_changes_its_own ON %I FOR UPDATE TO cron_observer_api '
            'USING (owner = ''api'') WITH CHECK (owner = ''api'')', relation);
        EXECUTE format(
            'CREATE POLICY the_api_removes_its_own ON %I FOR DELETE TO cron_observer_api USING (owner = ''api'')',
            relation);
    END LOOP;
END
$policies$;

-- A forecast may go without a trace. What has once been claimed or ended never disappears.
CREATE POLICY only_forecasts_disappear ON executions AS RESTRICTIVE FOR DELETE
    TO cron_observer_api, cron_observer_reconciler, cron_observer_scheduler
    USING (fence = 0 AND (status = 'PENDING' OR (status = 'SKIPPED' AND event_seq = 0)));

GRANT USAGE ON SCHEMA public TO cron_observer_api, cron_observer_reconciler, cron_observer_scheduler;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO cron_observer_api, cron_observer_reconciler, cron_observer_scheduler;

GRANT INSERT ON executions, attempts, execution_events, active_runs
    TO cron_observer_api, cron_observer_scheduler;
GRANT UPDATE ON executions, attempts TO cron_observer_api, cron_observer_scheduler;
GRANT DELETE ON executions, active_runs TO cron_observer_api, cron_observer_scheduler;
GRANT INSERT, DELETE ON executions TO cron_observer_reconciler;
GRANT UPDATE (queue, priority, plan_generation) ON executions TO cron_observer_reconciler;

GRANT INSERT, UPDATE, DELETE ON api_keys, claims, idempotency_keys TO cron_observer_api;
GRANT INSERT ON log_chunks, audit_log TO cron_observer_api;
GRANT INSERT, UPDATE, DELETE ON tasks, task_revisions, task_plan TO cron_observer_api;
GRANT UPDATE (requested_seq, next_poll_at) ON sources TO cron_observer_api;

GRANT INSERT, UPDATE, DELETE ON tasks, task_plan, manifest_files, sync_findings TO cron_observer_reconciler;
GRANT INSERT ON task_revisions, audit_log TO cron_observer_reconciler;
GRANT INSERT, UPDATE ON sources, sync_runs, projects TO cron_observer_reconciler;

GRANT UPDATE ON task_plan TO cron_observer_scheduler;
GRANT UPDATE (quarantine, deleted_at, updated_at) ON tasks TO cron_observer_scheduler;
GRANT DELETE ON claims, idempotency_keys TO cron_observer_scheduler;

-- Weekly partitions by id, Monday 00:00 UTC to Monday 00:00 UTC of the id's 48-bit millisecond prefix.

CREATE FUNCTION id_floor(at timestamptz) RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT rpad(lpad(to_hex(floor(extract(epoch FROM at) * 1000)::bigint), 12, '0'), 32, '0')::uuid $$;

CREATE FUNCTION add_partition(week timestamptz) RETURNS boolean LANGUAGE plpgsql AS $add$
DECLARE
    parent text;
    part text;
    key text;
    low uuid := id_floor(week);
    high uuid := id_floor(week + interval '7 days');
BEGIN
    IF to_regclass(format('executions_%s', to_char(week AT TIME ZONE 'UTC', 'YYYYMMDD'))) IS NOT NULL THEN
        RETURN false;
    END IF;
    FOREACH parent IN ARRAY ARRAY['executions', 'attempts', 'execution_events', 'log_chunks'] LOOP
        part := format('%s_%s', parent, to_char(week AT TIME ZONE 'UTC', 'YYYYMMDD'));
        key := CASE parent WHEN 'executions' THEN 'id' ELSE 'execution_id' END;
        -- A plain table with the bound as a CHECK is attached without a scan and with a short lock.
        EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE) '
            'WITH (fillfactor = %s, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05)',
            part, parent, CASE WHEN parent IN ('executions', 'attempts') THEN 85 ELSE 100 END);
        EXECUTE format('ALTER TABLE %I ADD CONSTRAINT is_of_its_week CHECK (%I >= %L AND %I < %L)',
            part, key, low, key, high);
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', part);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', part);
        -- A backup by the owner's role reads partitions one by one; without this it would hold none of their rows.
        EXECUTE format('CREATE POLICY the_owner_reads ON %I FOR SELECT TO cron_observer_owner USING (true)', part);
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, part, low, high);
    END LOOP;
    RETURN true;
END
$add$;

-- The scheduler's role may ask for partitions but owns none, so the work runs with the owner's rights.
CREATE FUNCTION ensure_partitions(first timestamptz, last timestamptz) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $ensure$
DECLARE
    week timestamptz := date_trunc('week', first AT TIME ZONE 'UTC') AT TIME ZONE 'UTC';
    made integer := 0;
BEGIN
    IF last > first + interval '2 years' THEN
        RAISE EXCEPTION 'refusing to make partitions for more than two years';
    END IF;
    IF (SELECT bool_and(to_regclass(format('executions_%s', to_char(w AT TIME ZONE 'UTC', 'YYYYMMDD'))) IS NOT NULL)
        FROM generate_series(week, last, interval '7 days') AS w) THEN
        RETURN 0;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('cron_observer.partitions', 0));
    WHILE week <= last LOOP
        made := made + add_partition(week)::integer;
        week := week + interval '7 days';
    END LOOP;
    RETURN made;
END
$ensure$;

-- Drops whole weeks that ended before `keep_from` and hold no open execution. Returns how many weeks went.
CREATE FUNCTION drop_partitions(keep_from timestamptz) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $drop$
DECLARE
    week text;
    monday timestamptz;
    parent text;
    open_rows boolean;
    dropped integer := 0;
BEGIN
    IF keep_from > clock_timestamp() - interval '1 day' THEN
        RAISE EXCEPTION 'refusing to drop partitions of the last day';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('cron_observer.partitions', 0));
    FOR week IN
        SELECT right(child.relname, 8) FROM pg_inherits
        JOIN pg_class child ON child.oid = inhrelid
        WHERE inhparent = 'executions'::regclass
          AND to_timestamp(right(child.relname, 8) || ' +00', 'YYYYMMDD TZH') + interval '7 days' <= keep_from
        ORDER BY 1
    LOOP
        -- Through the parent: a partition has no policy of its own, so that nobody sees a row in it.
        monday := to_timestamp(week || ' +00', 'YYYYMMDD TZH');
        SELECT EXISTS (
            SELECT FROM executions
            WHERE id >= id_floor(monday) AND id < id_floor(monday + interval '7 days')
              AND status IN ('PENDING', 'RUNNING')
        ) INTO open_rows;
        CONTINUE WHEN open_rows;
        FOREACH parent IN ARRAY ARRAY['executions', 'attempts', 'execution_events', 'log_chunks'] LOOP
            EXECUTE format('DROP TABLE %I', parent || '_' || week);
        END LOOP;
        dropped := dropped + 1;
    END LOOP;
    RETURN dropped;
END
$drop$;

REVOKE ALL ON FUNCTION add_partition(timestamptz), ensure_partitions(timestamptz, timestamptz),
    drop_partitions(timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ensure_partitions(timestamptz, timestamptz), drop_partitions(timestamptz)
    TO cron_observer_scheduler;

SELECT ensure_partitions(now() - interval '8 days', now() + interval '22 days');
