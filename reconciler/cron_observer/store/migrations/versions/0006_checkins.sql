-- Check-ins: addresses to ping, and what is known of runs that somebody else fires.

-- Where the pings of a task go: 128 bits of chance in the form of a UUID. Whoever knows it may ping, so it is a secret;
-- it is kept as it is, since it has to be shown to those who write it into their crontab.
CREATE TABLE ping_addresses (
    tenant_id UUID NOT NULL,
    task_uid UUID NOT NULL,
    address UUID NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT a_task_has_one_address PRIMARY KEY (tenant_id, task_uid),
    CONSTRAINT an_address_has_a_task FOREIGN KEY(tenant_id, task_uid) REFERENCES tasks (tenant_id, task_uid)
);

CREATE INDEX ping_addresses_by_address ON ping_addresses (address);

-- One key for all tasks of a project, which are then named; and the number of the project, as clients of Sentry need it.
CREATE TABLE ping_keys (
    tenant_id UUID NOT NULL,
    project_id UUID NOT NULL,
    number BIGINT NOT NULL,
    key TEXT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT a_project_is_pinged_by_one_key_only PRIMARY KEY (tenant_id, project_id),
    CONSTRAINT a_ping_key_has_a_project FOREIGN KEY(tenant_id, project_id) REFERENCES projects (tenant_id, project_id)
);

CREATE INDEX ping_keys_by_key ON ping_keys (key);

-- The runs that pings have begun or ended. closed_at: when their end was told.
CREATE TABLE checkins (
    tenant_id UUID NOT NULL,
    task_uid UUID NOT NULL,
    execution_id UUID NOT NULL,
    rid UUID,
    opened_at TIMESTAMP WITH TIME ZONE NOT NULL,
    closed_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT a_checkin_is_its_execution PRIMARY KEY (tenant_id, task_uid, execution_id)
);

CREATE UNIQUE INDEX checkins_by_rid ON checkins (tenant_id, task_uid, rid) WHERE rid IS NOT NULL;
CREATE INDEX checkins_open ON checkins (tenant_id, task_uid, opened_at) WHERE closed_at IS NULL;
CREATE INDEX checkins_by_age ON checkins (tenant_id, opened_at);

-- Up to when pings could be received, as far as anybody knows.
CREATE TABLE receiving (
    tenant_id UUID NOT NULL,
    until TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT a_tenant_is_received_once PRIMARY KEY (tenant_id)
);

-- When they could not.
CREATE TABLE outages (
    tenant_id UUID NOT NULL,
    since TIMESTAMP WITH TIME ZONE NOT NULL,
    until TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT an_outage_is_its_start PRIMARY KEY (tenant_id, since)
);

-- What has been silent for too long; slots of check-ins are judged by themselves.
CREATE INDEX executions_unpinged ON executions (tenant_id, start_deadline) WHERE status = 'PENDING' AND queue = '@checkin';

DO $policies$
DECLARE
    relation text;
BEGIN
    FOREACH relation IN ARRAY ARRAY['ping_addresses', 'ping_keys', 'checkins', 'receiving', 'outages'] LOOP
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

GRANT SELECT ON ping_addresses, ping_keys, checkins, receiving, outages
    TO cron_observer_api, cron_observer_reconciler, cron_observer_scheduler;
GRANT INSERT ON ping_addresses, ping_keys TO cron_observer_api, cron_observer_reconciler;
GRANT UPDATE (address, created_at) ON ping_addresses TO cron_observer_api;
GRANT UPDATE (key, created_at) ON ping_keys TO cron_observer_api;
GRANT INSERT, UPDATE ON checkins TO cron_observer_api;
GRANT DELETE ON checkins, outages TO cron_observer_scheduler;

-- Says whose an address or a key is: that comes before the tenant is known. A task that is gone, or is no check-in any
-- more, has none.
CREATE FUNCTION pinged_task(wanted uuid, project_key text, slug text) RETURNS TABLE (tenant uuid, task uuid)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $pinged$
    SELECT t.tenant_id, t.task_uid FROM ping_addresses AS a
    JOIN tasks AS t ON t.tenant_id = a.tenant_id AND t.task_uid = a.task_uid
    WHERE a.address = wanted AND t.removed_at IS NULL AND t.deleting_at IS NULL AND t.deleted_at IS NULL
      AND jsonb_typeof(t.spec -> 'run' -> 'checkin') = 'object'
    UNION ALL
    SELECT t.tenant_id, t.task_uid FROM ping_keys AS k
    JOIN tasks AS t ON t.tenant_id = k.tenant_id AND t.project_id = k.project_id AND t.live_name = slug
    WHERE k.key = project_key AND t.removed_at IS NULL AND t.deleting_at IS NULL AND t.deleted_at IS NULL
      AND jsonb_typeof(t.spec -> 'run' -> 'checkin') = 'object'
$pinged$;

REVOKE ALL ON FUNCTION pinged_task(uuid, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pinged_task(uuid, text, text) TO cron_observer_api;

-- Says whether a project of this number has this key.
CREATE FUNCTION ping_key_opens(project_key text, wanted bigint) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $opens$
    SELECT EXISTS (SELECT FROM ping_keys AS k WHERE k.key = project_key AND k.number = wanted)
$opens$;

REVOKE ALL ON FUNCTION ping_key_opens(text, bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ping_key_opens(text, bigint) TO cron_observer_api;

-- Notes that a process can receive pings, of every tenant; what lies further back than `patience` was an outage, which
-- is written once, with a notice in the audit log. Returns how many outages have ended.
CREATE FUNCTION receive_pings(now timestamptz, patience interval, audit uuid) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $receive$
DECLARE
    one record;
    before timestamptz;
    ended integer := 0;
BEGIN
    FOR one IN SELECT t.tenant_id FROM tenants AS t ORDER BY t.tenant_id LOOP
        INSERT INTO receiving AS r (tenant_id, until) VALUES (one.tenant_id, now) ON CONFLICT DO NOTHING;
        CONTINUE WHEN FOUND;
        SELECT r.until INTO before FROM receiving AS r WHERE r.tenant_id = one.tenant_id FOR UPDATE;
        UPDATE receiving AS r SET until = greatest(r.until, now) WHERE r.tenant_id = one.tenant_id;
        IF before + patience < now THEN
            INSERT INTO outages (tenant_id, since, until) VALUES (one.tenant_id, before, now);
            INSERT INTO audit_log (tenant_id, audit_id, at, actor, action, target, data)
            VALUES (one.tenant_id, audit, now, 'system', 'checkins.unobserved', 'pings',
                jsonb_build_object('since', before, 'until', now,
                    'seconds', round(extract(epoch FROM now - before)::numeric, 3)));
            ended := ended + 1;
        END IF;
    END LOOP;
    RETURN ended;
END
$receive$;

REVOKE ALL ON FUNCTION receive_pings(timestamptz, interval, uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION receive_pings(timestamptz, interval, uuid) TO cron_observer_api;
