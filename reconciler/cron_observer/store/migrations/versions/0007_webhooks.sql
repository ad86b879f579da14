-- Webhook executions: which tenants have any, at no cost to those that have none. What was sent and answered stands in
-- the events of the execution.
CREATE INDEX task_plan_webhooks ON task_plan (tenant_id) WHERE queue = '@http';
