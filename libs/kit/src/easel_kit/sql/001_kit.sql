-- Tables that every process's schema has.

CREATE TABLE outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    msg_id text NOT NULL,
    subject text NOT NULL,
    key text NOT NULL,
    payload bytea NOT NULL,
    traceparent text,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE FUNCTION outbox_told() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('outbox_' || TG_TABLE_SCHEMA, '');
    RETURN NULL;
END $$;

CREATE TRIGGER outbox_told AFTER INSERT ON outbox FOR EACH STATEMENT EXECUTE FUNCTION outbox_told();

-- What other owners' facts said last, by entity.
CREATE TABLE projection (
    entity text NOT NULL,
    workspace text NOT NULL,
    id text NOT NULL,
    key text NOT NULL,
    epoch bigint NOT NULL,
    generation bigint NOT NULL,
    row_version bigint NOT NULL,
    final boolean NOT NULL DEFAULT false,
    data bytea NOT NULL,
    seen_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (entity, workspace, id)
);
CREATE INDEX projection_by_key ON projection (entity, workspace, key) WHERE NOT final;

CREATE TABLE leases (
    shard integer PRIMARY KEY,
    holder text,
    token bigint NOT NULL DEFAULT 0,
    expires_at timestamptz NOT NULL DEFAULT '-infinity'
);
INSERT INTO leases (shard) SELECT generate_series(0, 63);

CREATE TABLE members (
    id text PRIMARY KEY,
    seen_at timestamptz NOT NULL
);
