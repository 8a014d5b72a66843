-- Canaries, on and over. Evidence and journal are in the row: what was decided and what it was decided from go together.
CREATE TABLE canaries (
    workspace text NOT NULL,
    id text NOT NULL,
    name text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('service', 'group')),
    row_version bigint NOT NULL,
    state text NOT NULL,
    data bytea NOT NULL,
    started_at timestamptz NOT NULL,
    ended_at timestamptz,
    PRIMARY KEY (workspace, id)
);
COMMENT ON COLUMN canaries.data IS 'decide.canary.Canary as msgpack';
CREATE UNIQUE INDEX canaries_on ON canaries (workspace, name) WHERE ended_at IS NULL;
CREATE INDEX canaries_by_name ON canaries (workspace, name, started_at);
