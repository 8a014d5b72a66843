-- Groups of services. A group's row comes with its first member and goes with its last one.

CREATE TABLE groups (
    workspace text NOT NULL,
    name text NOT NULL,
    row_version bigint NOT NULL,
    generation bigint NOT NULL,
    data bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace, name)
);
COMMENT ON COLUMN groups.data IS 'model.GroupRow as msgpack; the columns beside it are for guards and searches';

-- As past_names, for groups: one made again under a name goes on counting.
CREATE TABLE past_groups (
    workspace text NOT NULL,
    name text NOT NULL,
    generation bigint NOT NULL,
    row_version bigint NOT NULL,
    state bytea NOT NULL,
    deleted_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace, name)
);
