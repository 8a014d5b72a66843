-- The last hour of metrics, one row per service and minute, so that a restart does not lose it.
CREATE TABLE metric_rollup (
    minute_s bigint NOT NULL,
    workspace text NOT NULL,
    service text NOT NULL,
    cells bytea NOT NULL,
    PRIMARY KEY (minute_s, workspace, service)
);

CREATE TABLE webhook (
    id text PRIMARY KEY,
    workspace text NOT NULL,
    url text NOT NULL,
    entity text NOT NULL,
    key text NOT NULL,
    secret_sealed bytea NOT NULL,
    idempotency_key text,
    delivered_sequence bigint NOT NULL,
    failures integer NOT NULL DEFAULT 0,
    last_error text NOT NULL DEFAULT '',
    lost text NOT NULL DEFAULT '',
    row_version bigint NOT NULL DEFAULT 1,
    created_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX webhook_idempotency ON webhook (workspace, idempotency_key) WHERE idempotency_key IS NOT NULL;
