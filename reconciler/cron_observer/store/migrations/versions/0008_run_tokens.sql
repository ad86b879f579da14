-- Run tokens: keys that sign what one run may say; and a guard of the moves of executions.

-- One for each tenant, made when the first token is minted, never changed.
CREATE TABLE signing_keys (
    tenant_id UUID NOT NULL,
    secret BYTEA NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT a_tenant_signs_with_one_secret PRIMARY KEY (tenant_id),
    CONSTRAINT a_signing_key_has_a_tenant FOREIGN KEY (tenant_id) REFERENCES tenants (tenant_id)
);

ALTER TABLE signing_keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE signing_keys FORCE ROW LEVEL SECURITY;
CREATE POLICY the_owner_migrates ON signing_keys TO cron_observer_owner USING (true) WITH CHECK (true);
CREATE POLICY only_own_tenants ON signing_keys AS RESTRICTIVE
    TO cron_observer_api, cron_observer_reconciler, cron_observer_scheduler
    USING (tenant_id = ANY (app_tenants())) WITH CHECK (tenant_id = ANY (app_tenants()));
CREATE POLICY loops_read_and_write ON signing_keys TO cron_observer_reconciler, cron_observer_scheduler
    USING (true) WITH CHECK (true);
CREATE POLICY the_api_reads_and_writes ON signing_keys TO cron_observer_api USING (true) WITH CHECK (true);

-- Who hands out executions mints tokens: the API to workers, the scheduler's role to destinations of webhooks.
GRANT SELECT ON signing_keys TO cron_observer_api, cron_observer_reconciler, cron_observer_scheduler;
GRANT INSERT ON signing_keys TO cron_observer_api, cron_observer_scheduler;

-- Which status may follow which, whatever statement a running process sends: `lifecycle.MOVES` has them by event, and a
-- test compares the two. A fence never falls. A forecast that says why it will not run may come to run after all, when
-- a pause ends: nothing has befallen it yet. Migrations and repairs by the owner are not bound by it.
CREATE FUNCTION guard_moves() RETURNS trigger LANGUAGE plpgsql AS $guard$
BEGIN
    IF current_user NOT IN ('cron_observer_api', 'cron_observer_reconciler', 'cron_observer_scheduler') THEN
        RETURN NEW;
    END IF;
    IF NEW.fence < OLD.fence THEN
        RAISE EXCEPTION 'a fence never falls' USING ERRCODE = 'check_violation', CONSTRAINT = 'a_fence_never_falls';
    END IF;
    IF OLD.status = 'SKIPPED' AND NEW.status = 'PENDING' AND OLD.event_seq = 0 AND OLD.fence = 0 THEN
        RETURN NEW;
    END IF;
    IF OLD.status <> NEW.status AND OLD.status || ' ' || NEW.status NOT IN (
        'PENDING RUNNING', 'PENDING FINISHED', 'PENDING FAILED', 'PENDING CANCELLED', 'PENDING SKIPPED',
        'PENDING MISSED', 'RUNNING PENDING', 'RUNNING FINISHED', 'RUNNING FAILED', 'RUNNING CANCELLED',
        'RUNNING SKIPPED', 'FAILED FINISHED', 'MISSED FINISHED', 'MISSED FAILED', 'SKIPPED FINISHED', 'SKIPPED FAILED'
    ) THEN
        RAISE EXCEPTION 'an execution does not go from % to %', OLD.status, NEW.status
            USING ERRCODE = 'check_violation', CONSTRAINT = 'a_move_is_legal';
    END IF;
    RETURN NEW;
END
$guard$;

CREATE TRIGGER only_legal_moves BEFORE UPDATE ON executions FOR EACH ROW
    WHEN (OLD.status IS DISTINCT FROM NEW.status OR NEW.fence < OLD.fence) EXECUTE FUNCTION guard_moves();
