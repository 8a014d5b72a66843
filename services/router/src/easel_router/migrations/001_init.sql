-- What every live Envoy does with a service's path, as last acknowledged and probed (or refused).
CREATE TABLE routes (
    workspace text NOT NULL,
    service text NOT NULL,
    generation bigint NOT NULL,
    state text NOT NULL,
    version text NOT NULL,
    replicas text[] NOT NULL DEFAULT '{}',
    draining text[] NOT NULL DEFAULT '{}',
    token_version bigint NOT NULL DEFAULT 0,
    envoys integer NOT NULL DEFAULT 0,
    refused_reason text NOT NULL DEFAULT '',
    apply_ms double precision NOT NULL DEFAULT 0,
    at timestamptz NOT NULL,
    row_version bigint NOT NULL,
    lease_token bigint NOT NULL,
    PRIMARY KEY (workspace, service)
);

CREATE SEQUENCE route_version;

-- Replicas of which the router has told that no request is left.
CREATE TABLE drained (
    workspace text NOT NULL,
    replica text NOT NULL,
    service text NOT NULL,
    at timestamptz NOT NULL,
    row_version bigint NOT NULL,
    PRIMARY KEY (workspace, replica)
);

-- Envoys that have connected: after a restart the router waits for those it knew of lately.
CREATE TABLE envoys (
    id text PRIMARY KEY,
    holder text NOT NULL,
    connected boolean NOT NULL,
    seen_at timestamptz NOT NULL
);

-- By it the router knows itself when it asks an Envoy which snapshot is live; the same for all copies.
CREATE TABLE probe (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    secret text NOT NULL
);
