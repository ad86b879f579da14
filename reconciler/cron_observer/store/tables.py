"""The tables, as the migrations leave them; a test compares the two.

Every primary, unique and foreign key begins with ``tenant_id``. Constraints are named as sentences, so that an
error message reads. Every index says which query it serves. No foreign key points into `executions`: its
partitions are dropped whole.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    Double,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID

from cron_observer.lifecycle import FINAL, Reason, Status, Trigger
from cron_observer.store import checkin_tables, source_tables, statistics_tables, time_tables, token_tables
from cron_observer.store.columns import INSTANT, LABEL, column, metadata, tenant, words

__all__ = [
    "PARTITIONED",
    "checkin_tables",
    "metadata",
    "source_tables",
    "statistics_tables",
    "time_tables",
    "token_tables",
]

tenants = Table(
    "tenants",
    metadata,
    tenant(),
    column("name", Text),
    column("created_at", INSTANT),
    PrimaryKeyConstraint("tenant_id", name="a_tenant_is_its_id"),
)

projects = Table(
    "projects",
    metadata,
    tenant(),
    column("project_id", UUID),
    column("name", Text),
    column("created_at", INSTANT),
    PrimaryKeyConstraint("tenant_id", "project_id", name="a_project_is_its_id"),
    UniqueConstraint("tenant_id", "name", name="a_project_name_is_used_once"),
    ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name="a_project_has_a_tenant"),
)

api_keys = Table(
    "api_keys",
    metadata,
    tenant(),
    column("key_id", Text),
    column("secret_hash", LargeBinary),
    column("name", Text),
    column("scopes", ARRAY(Text)),
    column("created_at", INSTANT),
    Column("created_by", Text),
    Column("last_used_at", INSTANT),
    Column("revoked_at", INSTANT),
    PrimaryKeyConstraint("tenant_id", "key_id", name="a_key_is_its_prefix"),
    ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name="a_key_has_a_tenant"),
    CheckConstraint(
        "scopes <@ ARRAY['read', 'report', 'trigger', 'tasks:write', 'admin']::text[]",
        name="scopes_are_known",
    ),
    # authentication: who has this secret (keys.find)
    Index("api_keys_by_secret", "secret_hash"),
)

sources = Table(
    "sources",
    metadata,
    tenant(),
    column("source_id", UUID),
    column("project_id", UUID),
    column("name", Text),
    column("kind", Text),
    column("url", Text),
    Column("ref", Text),
    column("paths", ARRAY(Text), "'{}'"),
    column("ignore", ARRAY(Text), "'{}'"),
    Column("environment", Text),
    column("mode", Text, "'enforce'"),
    column("poll_seconds", Double),
    column("requested_seq", BigInteger, "0"),
    column("handled_seq", BigInteger, "0"),
    Column("observed_commit", Text),
    Column("observed_at", INSTANT),
    Column("applied_commit", Text),
    column("applied_seq", BigInteger, "0"),
    Column("applied_at", INSTANT),
    Column("validator_version", Text),
    column("next_poll_at", INSTANT),
    column("failures", Integer, "0"),
    Column("lease_owner", Text),
    column("lease_epoch", BigInteger, "0"),
    Column("lease_until", INSTANT),
    Column("first_pass_at", INSTANT),
    column("conditions", JSONB, "'{}'"),
    column("counts", JSONB, "'{}'"),
    column("created_at", INSTANT),
    column("failure_policy", Text, "'isolate'"),
    column("observed_seq", BigInteger, "0"),
    Column("refused", Text),
    Column("plan_hash", Text),
    Column("held", JSONB),
    Column("checked_at", INSTANT),
    Column("suspended_at", INSTANT),
    Column("suspended_until", INSTANT),
    Column("suspended_by", Text),
    Column("suspend_reason", Text),
    Column("asked_by", Text),
    Column("taken_for", Text),
    column("fetched_bytes", BigInteger, "0"),
    PrimaryKeyConstraint("tenant_id", "source_id", name="a_source_is_its_id"),
    UniqueConstraint("tenant_id", "name", name="a_source_name_is_used_once"),
    ForeignKeyConstraint(
        ["tenant_id", "project_id"],
        ["projects.tenant_id", "projects.project_id"],
        name="a_source_has_a_project",
    ),
    CheckConstraint("kind IN ('git', 'folder')", name="a_source_is_git_or_a_folder"),
    CheckConstraint("mode IN ('enforce', 'observe')", name="a_source_mode_is_known"),
    CheckConstraint("failure_policy IN ('isolate', 'atomic')", name="a_failure_policy_is_known"),
    CheckConstraint("(suspended_at IS NULL) = (suspended_by IS NULL)", name="a_suspension_has_an_author"),
    CheckConstraint(
        "asked_by IN ('neighbour', 'push', 'detach', 'resume', 'manual', 'approval')", name="who_asks_is_known"
    ),
    CheckConstraint(
        "taken_for IN ('neighbour', 'push', 'detach', 'resume', 'manual', 'approval')",
        name="what_it_is_taken_for_is_known",
    ),
)

manifest_files = Table(
    "manifest_files",
    metadata,
    tenant(),
    column("source_id", UUID),
    column("path", Text),
    column("blob", Text),
    column("state", Text),
    column("documents", Integer),
    Column("commit", Text),
    Column("good_blob", Text),
    Column("good_text", Text),
    Column("good_commit", Text),
    PrimaryKeyConstraint("tenant_id", "source_id", "path", name="a_file_is_its_path"),
    ForeignKeyConstraint(
        ["tenant_id", "source_id"], ["sources.tenant_id", "sources.source_id"], name="a_file_has_a_source"
    ),
    CheckConstraint("state IN ('ok', 'invalid', 'unparseable')", name="a_file_state_is_known"),
    # reconcile: files to read again with every change (sync.files)
    Index("manifest_files_in_trouble", "tenant_id", "source_id", postgresql_where=text("state <> 'ok'")),
)

tasks = Table(
    "tasks",
    metadata,
    tenant(),
    column("task_uid", UUID),
    column("project_id", UUID),
    column("name", Text),
    column("seed", Text),
    column("owner", Text),
    Column("source_id", UUID),
    Column("path", Text),
    Column("document", Integer),
    Column("line", Integer),
    Column("commit", Text),
    Column("author", Text),
    Column("subject", Text),
    Column("committed_at", INSTANT),
    column("spec", JSONB),
    column("spec_hash", LargeBinary),
    column("generation", Integer),
    column("labels", JSONB, "'{}'"),
    column("annotations", JSONB, "'{}'"),
    Column("sync", Text),
    Column("quarantine", Text),
    Column("removed_at", INSTANT),
    Column("deleting_at", INSTANT),
    Column("deleted_at", INSTANT),
    column("created_at", INSTANT),
    column("updated_at", INSTANT),
    Column(
        "live_name",
        Text,
        Computed("CASE WHEN (deleted_at IS NULL) THEN name ELSE NULL::text END", persisted=True),
    ),
    PrimaryKeyConstraint("tenant_id", "task_uid", name="a_task_is_its_uid"),
    UniqueConstraint("tenant_id", "project_id", "live_name", name="a_live_name_is_used_once"),
    ForeignKeyConstraint(
        ["tenant_id", "project_id"],
        ["projects.tenant_id", "projects.project_id"],
        name="a_task_has_a_project",
    ),
    ForeignKeyConstraint(
        ["tenant_id", "source_id"],
        ["sources.tenant_id", "sources.source_id"],
        name="an_owned_task_has_a_source",
    ),
    CheckConstraint("owner IN ('manifest', 'api')", name="an_owner_is_a_manifest_or_the_api"),
    CheckConstraint("(owner = 'manifest') = (source_id IS NOT NULL)", name="manifest_owned_iff_it_has_a_source"),
    CheckConstraint("(owner = 'manifest') = (path IS NOT NULL)", name="manifest_owned_iff_it_has_a_path"),
    CheckConstraint("sync IN ('SYNCED', 'KEPT_LAST_GOOD', 'HELD')", name="sync_is_known"),
    # references by name, to deleted tasks as well (task_reads.resolve)
    Index("tasks_by_name", "tenant_id", "name"),
    # reconcile: the tasks that a source owns, by file (tasks.inventory)
    Index("tasks_by_source", "tenant_id", "source_id", "path"),
    # reconcile: what is kept or held, as plans and counts ask for it (task_writes, counting)
    Index(
        "tasks_out_of_sync",
        "tenant_id",
        "source_id",
        postgresql_where=text("sync IN ('KEPT_LAST_GOOD', 'HELD') AND removed_at IS NULL"),
    ),
    # reconcile: tombstones that are old enough to be purged (tasks.purge)
    Index(
        "tasks_removed",
        "tenant_id",
        "removed_at",
        postgresql_where=text("removed_at IS NOT NULL AND deleted_at IS NULL"),
    ),
    # scheduler: deletions to carry out (tasks.deleting)
    Index(
        "tasks_deleting",
        "tenant_id",
        "deleting_at",
        postgresql_where=text("deleting_at IS NOT NULL AND deleted_at IS NULL"),
    ),
    # lists: one label of a project (views.tasks)
    Index("tasks_by_label", "labels", postgresql_using="gin", postgresql_ops={"labels": "jsonb_path_ops"}),
)

task_revisions = Table(
    "task_revisions",
    metadata,
    tenant(),
    column("task_uid", UUID),
    column("generation", Integer),
    column("owner", Text),
    column("action", Text),
    column("spec", JSONB),
    Column("source", Text),
    Column("commit", Text),
    Column("author", Text),
    Column("subject", Text),
    Column("committed_at", INSTANT),
    Column("path", Text),
    Column("line", Integer),
    column("created_at", INSTANT),
    PrimaryKeyConstraint("tenant_id", "task_uid", "generation", name="a_revision_is_its_generation"),
    ForeignKeyConstraint(
        ["tenant_id", "task_uid"], ["tasks.tenant_id", "tasks.task_uid"], name="a_revision_has_a_task"
    ),
)

task_plan = Table(
    "task_plan",
    metadata,
    tenant(),
    column("task_uid", UUID),
    column("project_id", UUID),
    column("owner", Text),
    column("generation", BigInteger),
    column("active", Boolean),
    column("schedule", JSONB),
    column("queue", Text),
    column("priority", SmallInteger),
    Column("start_deadline_seconds", Double),
    column("effective_from", INSTANT),
    column("planned_until", INSTANT),
    Column("plan_due_at", INSTANT),
    Column("next_fire_at", INSTANT),
    Column("tzdata_version", Text),
    Column("holidays_version", Text),
    Column("skip_reason", Text),
    Column("skip_count", BigInteger),
    PrimaryKeyConstraint("tenant_id", "task_uid", name="a_task_has_one_plan"),
    ForeignKeyConstraint(["tenant_id", "task_uid"], ["tasks.tenant_id", "tasks.task_uid"], name="a_plan_has_a_task"),
    # planning: whose slots run out next (plans.due)
    Index("task_plan_due", "tenant_id", "plan_due_at", postgresql_where=text("plan_due_at IS NOT NULL")),
    # which tenants have webhooks (dispatching.tenants_with_webhooks)
    Index("task_plan_webhooks", "tenant_id", postgresql_where=text("queue = '@http'")),
    postgresql_with={"fillfactor": "80"},
)

executions = Table(
    "executions",
    metadata,
    tenant(),
    column("id", UUID),
    column("project_id", UUID),
    column("task_uid", UUID),
    column("status", Text),
    Column("reason", Text),
    column("trigger", Text),
    Column("nominal_at", INSTANT),
    Column("nominal_local", LABEL),
    Column("nominal_fold", SmallInteger),
    Column("timezone", Text),
    Column("tzdata_version", Text),
    Column("holidays_version", Text),
    Column("moved_by", Text),
    column("fire_at", INSTANT),
    column("available_at", INSTANT),
    Column("start_deadline", INSTANT),
    Column("closes_at", INSTANT),
    Column("held_at", INSTANT),
    column("queue", Text),
    column("priority", SmallInteger),
    Column("plan_generation", BigInteger),
    Column("generation", Integer),
    column("forced", Boolean, "false"),
    column("attempt", Integer, "0"),
    column("fence", BigInteger, "0"),
    column("lease_losses", SmallInteger, "0"),
    column("event_seq", Integer, "0"),
    Column("worker", Text),
    Column("protocol", Text),
    Column("claimed_at", INSTANT),
    Column("started_at", INSTANT),
    Column("finished_at", INSTANT),
    Column("lease_until", INSTANT),
    Column("lease_seconds", Double),
    Column("run_deadline", INSTANT),
    Column("check_at", INSTANT),
    column("late", Boolean, "false"),
    Column("cancel_requested_at", INSTANT),
    Column("cancel_by", Text),
    Column("cancel_reason", Text),
    Column("cancel_deadline", INSTANT),
    Column("progress", Double),
    Column("message", Text),
    Column("checkpoint", JSONB),
    Column("payload", JSONB),
    Column("result", JSONB),
    Column("exit_code", Integer),
    Column("error", JSONB),
    Column("repeats", UUID),
    Column("backfill_id", UUID),
    column("created_at", INSTANT),
    PrimaryKeyConstraint("tenant_id", "id", name="an_execution_is_its_id"),
    CheckConstraint(f"status IN ({words(Status)})", name="a_status_is_known"),
    CheckConstraint(f"reason IN ({words(Reason)})", name="a_reason_is_known"),
    CheckConstraint(f"trigger IN ({words(Trigger)})", name="a_trigger_is_known"),
    CheckConstraint("(lease_until IS NOT NULL) = (status = 'RUNNING')", name="leased_iff_running"),
    CheckConstraint("(check_at IS NOT NULL) = (status = 'RUNNING')", name="watched_iff_running"),
    CheckConstraint(f"(finished_at IS NOT NULL) = (status IN ({words(sorted(FINAL))}))", name="finished_iff_final"),
    CheckConstraint("priority BETWEEN 0 AND 9", name="a_priority_is_0_to_9"),
    CheckConstraint("fence >= 0 AND attempt >= 0", name="fence_and_attempt_count_up"),
    # claims: what is due in a queue, most urgent first (executions.candidates)
    Index(
        "executions_to_claim",
        "tenant_id",
        "queue",
        text("priority DESC"),
        "available_at",
        postgresql_where=text("status = 'PENDING' AND held_at IS NULL"),
    ),
    # claims and settling: what waits for a place of its task, out of the way of all else (executions.candidates)
    Index(
        "executions_held",
        "tenant_id",
        "task_uid",
        "backfill_id",
        "available_at",
        postgresql_where=text("status = 'PENDING' AND held_at IS NOT NULL"),
    ),
    # expiry: who has waited too long for another try (executions.deadlines)
    Index(
        "executions_to_give_up",
        "tenant_id",
        "start_deadline",
        postgresql_where=text("status = 'PENDING' AND fence > 0"),
    ),
    # check-ins: the slots that nobody has pinged in time (checkin_judging)
    Index(
        "executions_unpinged",
        "tenant_id",
        "start_deadline",
        postgresql_where=text("status = 'PENDING' AND queue = '@checkin'"),
    ),
    # settling and planning: the waiting slots of a task (executions.deadlines, plans)
    Index(
        "executions_waiting_of_task",
        "tenant_id",
        "task_uid",
        "available_at",
        postgresql_where=text("status = 'PENDING'"),
    ),
    # expiry: whose lease, deadline or grace may have run out (executions.deadlines); heartbeats leave it alone
    Index("executions_to_check", "tenant_id", "check_at", postgresql_where=text("status = 'RUNNING'")),
    # the last runs of a task (views)
    Index("executions_of_task", "tenant_id", "task_uid", text("fire_at DESC"), text("id DESC")),
    # backfills: which slots of a task have been repeated (backfills)
    Index(
        "executions_that_repeat",
        "tenant_id",
        "task_uid",
        "nominal_at",
        postgresql_where=text("repeats IS NOT NULL"),
    ),
    # statistics: what is open, by fire time (statistics_reads._COUNTS)
    Index("executions_open", "tenant_id", "fire_at", postgresql_where=text("finished_at IS NULL")),
    # lists and days: newest first (views)
    Index("executions_by_fire_time", "tenant_id", text("fire_at DESC"), text("id DESC")),
    postgresql_partition_by="RANGE (id)",
)

active_runs = Table(
    "active_runs",
    metadata,
    tenant(),
    column("scope", Text),
    column("n", Integer),
    column("execution_id", UUID),
    column("since", INSTANT),
    PrimaryKeyConstraint("tenant_id", "scope", "n", name="one_run_holds_a_place"),
    # ending an execution gives its place back
    Index("active_runs_of_execution", "tenant_id", "execution_id"),
)

attempts = Table(
    "attempts",
    metadata,
    tenant(),
    column("execution_id", UUID),
    column("fence", BigInteger),
    column("attempt", Integer),
    Column("worker", Text),
    column("claimed_at", INSTANT),
    Column("started_at", INSTANT),
    Column("ended_at", INSTANT),
    Column("outcome", Text),
    Column("reason", Text),
    Column("exit_code", Integer),
    Column("error", JSONB),
    Column("digest", LargeBinary),
    Column("late_outcome", JSONB),
    column("log_base", Integer, "0"),
    column("log_lines", Integer, "0"),
    column("log_bytes", BigInteger, "0"),
    column("log_stream", BigInteger, "0"),
    column("log_loose", Integer, "0"),
    column("log_packed", Integer, "0"),
    Column("log_cut_from", Integer),
    Column("log_cut_to", Integer),
    column("log_cut_bytes", BigInteger, "0"),
    PrimaryKeyConstraint("tenant_id", "execution_id", "fence", name="an_attempt_is_its_fence"),
    CheckConstraint("(outcome IS NULL) = (ended_at IS NULL)", name="an_attempt_ends_with_an_outcome"),
    CheckConstraint("(log_cut_from IS NULL) = (log_cut_to IS NULL)", name="a_cut_has_two_ends"),
    postgresql_partition_by="RANGE (execution_id)",
)

execution_events = Table(
    "execution_events",
    metadata,
    tenant(),
    column("execution_id", UUID),
    column("seq", Integer),
    column("at", INSTANT),
    column("type", Text),
    column("attempt", Integer),
    column("fence", BigInteger),
    column("status", Text),
    Column("reason", Text),
    Column("actor", Text),
    Column("data", JSONB),
    PrimaryKeyConstraint("tenant_id", "execution_id", "seq", name="an_event_is_its_number"),
    # streams: what happened since (views.events_since)
    Index("execution_events_by_time", "tenant_id", "at"),
    postgresql_partition_by="RANGE (execution_id)",
)

log_chunks = Table(
    "log_chunks",
    metadata,
    tenant(),
    column("execution_id", UUID),
    column("fence", BigInteger),
    column("first_seq", Integer),
    column("lines", Integer),
    column("raw_bytes", Integer),
    column("levels", SmallInteger),
    column("received_at", INSTANT),
    column("codec", Text),
    column("data", LargeBinary),
    Column("debugs", Integer),
    Column("infos", Integer),
    Column("warns", Integer),
    Column("errors", Integer),
    PrimaryKeyConstraint("tenant_id", "execution_id", "fence", "first_seq", name="a_chunk_is_its_first_line"),
    CheckConstraint("codec IN ('zlib', 'lines')", name="a_codec_is_known"),
    CheckConstraint("lines > 0", name="a_chunk_has_lines"),
    postgresql_partition_by="RANGE (execution_id)",
)

claims = Table(
    "claims",
    metadata,
    tenant(),
    column("claim_id", UUID),
    column("worker", Text),
    column("execution_ids", ARRAY(UUID)),
    column("fences", ARRAY(BigInteger)),
    column("created_at", INSTANT),
    column("expires_at", INSTANT),
    PrimaryKeyConstraint("tenant_id", "claim_id", name="a_claim_is_answered_once"),
    # clean-up of what nobody can repeat any more
    Index("claims_by_expiry", "tenant_id", "expires_at"),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    tenant(),
    column("scope", Text),
    column("key", Text),
    column("request_hash", LargeBinary),
    Column("status", Integer),
    Column("response", JSONB),
    Column("execution_id", UUID),
    column("created_at", INSTANT),
    column("expires_at", INSTANT),
    PrimaryKeyConstraint("tenant_id", "scope", "key", name="a_key_is_used_once_in_its_scope"),
    Index("idempotency_keys_by_expiry", "tenant_id", "expires_at"),
)

sync_runs = Table(
    "sync_runs",
    metadata,
    tenant(),
    column("run_id", UUID),
    column("source_id", UUID),
    column("trigger", Text),
    column("epoch", BigInteger),
    Column("from_commit", Text),
    Column("to_commit", Text),
    Column("author", Text),
    Column("subject", Text),
    Column("committed_at", INSTANT),
    column("outcome", Text),
    column("counts", JSONB, "'{}'"),
    Column("error", Text),
    column("started_at", INSTANT),
    Column("finished_at", INSTANT),
    Column("strategy", Text),
    Column("plan_hash", Text),
    Column("held", JSONB),
    Column("timings", JSONB),
    PrimaryKeyConstraint("tenant_id", "run_id", name="a_run_is_its_id"),
    ForeignKeyConstraint(
        ["tenant_id", "source_id"], ["sources.tenant_id", "sources.source_id"], name="a_run_has_a_source"
    ),
    CheckConstraint(
        "trigger IN ('poll', 'neighbour', 'push', 'detach', 'resume', 'manual', 'approval')",
        name="a_run_trigger_is_known",
    ),
    CheckConstraint(
        "outcome IN ('running', 'applied', 'unchanged', 'observed', 'refused', 'failed', 'abandoned')",
        name="a_run_outcome_is_known",
    ),
    # the history of a source, newest first (views.runs)
    Index("sync_runs_of_source", "tenant_id", "source_id", text("run_id DESC")),
)

sync_findings = Table(
    "sync_findings",
    metadata,
    tenant(),
    column("source_id", UUID),
    column("path", Text),
    column("n", Integer),
    Column("run_id", UUID),
    column("severity", Text),
    column("code", Text),
    Column("line", Integer),
    Column("column", Integer),
    Column("end_line", Integer),
    Column("end_column", Integer),
    Column("pointer", Text),
    Column("kind", Text),
    Column("name", Text),
    column("message", Text),
    Column("hint", Text),
    Column("excerpt", Text),
    PrimaryKeyConstraint("tenant_id", "source_id", "path", "n", name="a_finding_is_its_place_in_a_file"),
    ForeignKeyConstraint(
        ["tenant_id", "source_id"], ["sources.tenant_id", "sources.source_id"], name="a_finding_has_a_source"
    ),
    CheckConstraint("severity IN ('error', 'warning')", name="a_severity_is_known"),
)

audit_log = Table(
    "audit_log",
    metadata,
    tenant(),
    column("audit_id", UUID),
    column("at", INSTANT),
    column("actor", Text),
    column("action", Text),
    column("target", Text),
    Column("data", JSONB),
    PrimaryKeyConstraint("tenant_id", "audit_id", name="an_audit_entry_is_its_id"),
)

#: Range-partitioned by execution id, week by week, made and dropped together.
PARTITIONED: Final = ("executions", "attempts", "execution_events", "log_chunks")
