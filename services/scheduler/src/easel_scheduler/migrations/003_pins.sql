-- What the tags and branches of a revision name, as its first replica found them: all later ones run the same.
CREATE TABLE pins (
    workspace text NOT NULL,
    service_uid text NOT NULL,
    revision integer NOT NULL,
    source text NOT NULL,
    value text NOT NULL,
    service text NOT NULL,
    replica text NOT NULL,
    at timestamptz NOT NULL,
    PRIMARY KEY (workspace, service_uid, revision, source)
);
