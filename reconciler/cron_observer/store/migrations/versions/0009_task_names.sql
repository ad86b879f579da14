-- What a reference `project/name` has ever meant, tasks that are gone among it (task_reads.resolve).
CREATE INDEX tasks_by_name ON tasks (tenant_id, name);
