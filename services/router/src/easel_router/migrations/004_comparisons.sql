-- What is known of the answers to mirrored requests: one report per service, about two sides that are told in it.
CREATE TABLE comparisons (
    workspace text NOT NULL,
    service text NOT NULL,
    target text NOT NULL,
    since timestamptz NOT NULL,
    at timestamptz NOT NULL,
    report bytea NOT NULL,
    PRIMARY KEY (workspace, service)
);
