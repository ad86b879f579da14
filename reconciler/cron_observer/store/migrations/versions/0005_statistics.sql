-- Statistics: final outcomes by quarter hours, with histograms of durations and start delays.

-- What became of the executions of a task, or of all of a project (scope is the uid of either), that fired in a
-- quarter hour. Times are microseconds; buckets are those of cron_observer.statistics.
CREATE TABLE stats_15m (
    tenant_id UUID NOT NULL,
    scope UUID NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    finished INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    cancelled INTEGER NOT NULL,
    skipped INTEGER NOT NULL,
    missed INTEGER NOT NULL,
    late INTEGER NOT NULL,
    reasons JSONB,
    duration_sum BIGINT,
    duration_min BIGINT,
    duration_max BIGINT,
    duration_buckets SMALLINT[],
    duration_counts INTEGER[],
    delay_sum BIGINT,
    delay_min BIGINT,
    delay_max BIGINT,
    delay_buckets SMALLINT[],
    delay_counts INTEGER[],
    -- the counts of many quarters are read from the index alone
    CONSTRAINT a_quarter_is_counted_once PRIMARY KEY (tenant_id, scope, at)
        INCLUDE (finished, failed, cancelled, skipped, missed, late)
);

CREATE INDEX stats_15m_by_quarter ON stats_15m (tenant_id, at);

-- A quarter whose outcomes have changed since it was counted. Each transaction writes marks of its own, so that none
-- waits for another; counting a quarter removes the marks that it sees first.
CREATE TABLE stats_marks (
    tenant_id UUID NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    marked_by BIGINT NOT NULL,
    marked_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT a_mark_is_of_a_transaction PRIMARY KEY (tenant_id, at, marked_by, marked_at)
);

-- From where on quarters are counted anew when something changes. What lies before is kept as it was counted last:
-- its executions may be gone. The row is also the lock of whoever counts.
CREATE TABLE stats_state (
    tenant_id UUID NOT NULL,
    frozen_before TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT statistics_have_a_state PRIMARY KEY (tenant_id)
);

-- What is open, by fire time: counted live.
CREATE INDEX executions_open ON executions (tenant_id, fire_at) WHERE finished_at IS NULL;

DO $policies$
DECLARE
    relation text;
BEGIN
    FOREACH relation IN ARRAY ARRAY['stats_15m', 'stats_marks', 'stats_state'] LOOP
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

GRANT SELECT ON stats_15m, stats_marks, stats_state
    TO cron_observer_api, cron_observer_reconciler, cron_observer_scheduler;
GRANT INSERT ON stats_marks TO cron_observer_api, cron_observer_reconciler, cron_observer_scheduler;
GRANT DELETE ON stats_marks TO cron_observer_scheduler;
GRANT INSERT, DELETE ON stats_15m TO cron_observer_scheduler;
GRANT INSERT, UPDATE ON stats_state TO cron_observer_scheduler;

-- Marks are written by triggers: whatever changes an outcome, in whichever statement, cannot forget to. They look at
-- nothing but their own row. That a row is final is its `finished_at`; beats of the heart and claims fire nothing.

CREATE FUNCTION quarter_of(at timestamptz) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT date_bin('15 minutes', at, TIMESTAMPTZ '2000-01-01 00:00:00+00') $$;

CREATE FUNCTION mark_outcome() RETURNS trigger LANGUAGE plpgsql AS $mark$
BEGIN
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO stats_marks (tenant_id, at, marked_by, marked_at)
        VALUES (NEW.tenant_id, date_bin('15 minutes', NEW.fire_at, TIMESTAMPTZ '2000-01-01 00:00:00+00'),
            pg_current_xact_id()::text::bigint, transaction_timestamp()) ON CONFLICT DO NOTHING;
    END IF;
    IF TG_OP = 'DELETE' OR (TG_OP = 'UPDATE' AND OLD.fire_at <> NEW.fire_at) THEN
        INSERT INTO stats_marks (tenant_id, at, marked_by, marked_at)
        VALUES (OLD.tenant_id, date_bin('15 minutes', OLD.fire_at, TIMESTAMPTZ '2000-01-01 00:00:00+00'),
            pg_current_xact_id()::text::bigint, transaction_timestamp()) ON CONFLICT DO NOTHING;
    END IF;
    RETURN NULL;
END
$mark$;

CREATE TRIGGER an_outcome_is_written AFTER INSERT ON executions FOR EACH ROW
    WHEN (NEW.finished_at IS NOT NULL) EXECUTE FUNCTION mark_outcome();
CREATE TRIGGER an_outcome_changes AFTER UPDATE ON executions FOR EACH ROW
    WHEN (OLD.finished_at IS NOT NULL OR NEW.finished_at IS NOT NULL) EXECUTE FUNCTION mark_outcome();
CREATE TRIGGER an_outcome_goes AFTER DELETE ON executions FOR EACH ROW
    WHEN (OLD.finished_at IS NOT NULL) EXECUTE FUNCTION mark_outcome();

-- Of a range, the quarters that count differently from before.
CREATE FUNCTION mark_range() RETURNS trigger LANGUAGE plpgsql AS $mark$
DECLARE
    was slot_ranges;
    becomes slot_ranges;
    one slot_ranges;
BEGIN
    IF TG_OP <> 'INSERT' THEN was := OLD; END IF;
    IF TG_OP <> 'DELETE' THEN becomes := NEW; END IF;
    one := coalesce(becomes, was);
    INSERT INTO stats_marks (tenant_id, at, marked_by, marked_at)
    SELECT one.tenant_id, date_trunc('day', one.first_at, 'UTC') + (q.n - 1) * interval '15 minutes',
        pg_current_xact_id()::text::bigint, transaction_timestamp()
    FROM unnest(was.quarters, becomes.quarters) WITH ORDINALITY AS q (old, new, n)
    WHERE coalesce(q.old, 0) <> coalesce(q.new, 0)
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$mark$;

CREATE TRIGGER a_range_changes AFTER INSERT OR UPDATE OR DELETE ON slot_ranges FOR EACH ROW
    EXECUTE FUNCTION mark_range();

-- What was there before is counted like what changes: every quarter with an outcome is marked, and the schedulers
-- count it in steps. Until then it is read from the executions.
INSERT INTO stats_marks (tenant_id, at, marked_by, marked_at)
SELECT DISTINCT e.tenant_id, quarter_of(e.fire_at), 0, now() FROM executions AS e WHERE e.finished_at IS NOT NULL
UNION
SELECT r.tenant_id, date_trunc('day', r.first_at, 'UTC') + (q.number - 1) * interval '15 minutes', 0, now()
FROM slot_ranges AS r CROSS JOIN LATERAL unnest(r.quarters) WITH ORDINALITY AS q (n, number) WHERE q.n > 0;

-- As before, and no week whose executions are not all counted for good: statistics are kept longer than executions.
CREATE OR REPLACE FUNCTION drop_partitions(keep_from timestamptz) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $drop$
DECLARE
    week text;
    monday timestamptz;
    parent text;
    kept boolean;
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
            SELECT FROM executions AS e LEFT JOIN stats_state AS s ON s.tenant_id = e.tenant_id
            WHERE e.id >= id_floor(monday) AND e.id < id_floor(monday + interval '7 days')
              AND (e.status IN ('PENDING', 'RUNNING') OR s.frozen_before IS NULL OR e.fire_at >= s.frozen_before)
        ) INTO kept;
        CONTINUE WHEN kept;
        FOREACH parent IN ARRAY ARRAY['executions', 'attempts', 'execution_events', 'log_chunks'] LOOP
            EXECUTE format('DROP TABLE %I', parent || '_' || week);
        END LOOP;
        dropped := dropped + 1;
    END LOOP;
    RETURN dropped;
END
$drop$;
