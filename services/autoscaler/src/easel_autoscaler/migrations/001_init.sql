-- The decision in force, one row per service; and the journal of all decisions.

-- Rises over all services for ever, so that a row made anew after pruning is newer than the one readers remember.
CREATE SEQUENCE scale_version;

CREATE TABLE scale (
    workspace text NOT NULL,
    service text NOT NULL,
    uid text NOT NULL,
    generation bigint NOT NULL,
    number bigint NOT NULL,
    before integer NOT NULL CHECK (before >= 0),
    wanted integer NOT NULL CHECK (wanted >= 0),
    reason text NOT NULL,
    message text NOT NULL,
    inputs jsonb NOT NULL,
    decided_at timestamptz NOT NULL,
    row_version bigint NOT NULL,
    lease_token bigint NOT NULL,
    PRIMARY KEY (workspace, service)
);

CREATE TABLE decisions (
    workspace text NOT NULL,
    service text NOT NULL,
    uid text NOT NULL,
    number bigint NOT NULL,
    generation bigint NOT NULL,
    before integer NOT NULL,
    wanted integer NOT NULL,
    reason text NOT NULL,
    message text NOT NULL,
    inputs jsonb NOT NULL,
    decided_at timestamptz NOT NULL,
    PRIMARY KEY (workspace, service, number)
);
CREATE INDEX decisions_by_age ON decisions (decided_at);
