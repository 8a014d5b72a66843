-- A replica may be taken out of traffic more than once (isolated, restarted in its place): told by number.
ALTER TABLE drained ADD COLUMN drain_number bigint NOT NULL DEFAULT 0;

ALTER TABLE routes ADD COLUMN holding boolean NOT NULL DEFAULT false;

-- Cold starts seen, the newest few of each revision: what a held request is told to expect.
CREATE TABLE cold_starts (
    workspace text NOT NULL,
    service text NOT NULL,
    revision bigint NOT NULL,
    replica text NOT NULL,
    at timestamptz NOT NULL,
    phase_s jsonb NOT NULL,
    PRIMARY KEY (workspace, replica)
);
CREATE INDEX cold_starts_of_revision ON cold_starts (workspace, service, revision, at DESC);
