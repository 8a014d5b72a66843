-- The scheduler's truth: replicas and nodes. `data` is the msgspec struct as JSON; the columns beside it are what is
-- searched, summed and guarded. Tokens: fencing tokens of the last writer (easel_kit.leases); a lower one is refused.

CREATE TABLE replica (
    workspace text NOT NULL,
    id text NOT NULL,
    service text NOT NULL,
    node text,
    state text NOT NULL,
    live boolean NOT NULL,
    cpu double precision NOT NULL,
    memory_mib bigint NOT NULL,
    gpu integer NOT NULL,
    row_version bigint NOT NULL,
    plan_token bigint NOT NULL DEFAULT 0,
    life_token bigint NOT NULL DEFAULT 0,
    ended_at timestamptz,
    data jsonb NOT NULL,
    PRIMARY KEY (workspace, id)
);
CREATE INDEX replica_live_of_service ON replica (workspace, service) WHERE live;
CREATE INDEX replica_live_of_node ON replica (workspace, node) INCLUDE (cpu, memory_mib, gpu, service) WHERE live;
CREATE INDEX replica_pending ON replica (workspace, service) WHERE state = 'pending';
CREATE INDEX replica_ended ON replica (workspace, service, ended_at DESC) WHERE NOT live;

CREATE TABLE node (
    workspace text NOT NULL,
    id text NOT NULL,
    state text NOT NULL,
    row_version bigint NOT NULL,
    token bigint NOT NULL DEFAULT 0,
    agent_addr text NOT NULL,
    last_seen_at timestamptz NOT NULL,
    data jsonb NOT NULL,
    PRIMARY KEY (workspace, id)
);

-- Capacity is global: every placement raises `version`, so that two copies never place from the same view.
CREATE TABLE placement (
    workspace text PRIMARY KEY,
    version bigint NOT NULL DEFAULT 0,
    token bigint NOT NULL DEFAULT 0
);
