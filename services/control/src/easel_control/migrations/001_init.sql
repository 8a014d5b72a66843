-- Control's truth. Secrets (tokens, environment values, stored answers) are sealed by the process before they get here.

CREATE TABLE services (
    workspace text NOT NULL,
    name text NOT NULL,
    row_version bigint NOT NULL,
    generation bigint NOT NULL,
    wanted text NOT NULL CHECK (wanted IN ('running', 'stopped', 'deleted')),
    status text NOT NULL,
    data bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace, name)
);
COMMENT ON COLUMN services.data IS 'model.ServiceRow as msgpack; the columns beside it are for guards and searches';

CREATE TABLE revisions (
    workspace text NOT NULL,
    name text NOT NULL,
    number integer NOT NULL,
    state text NOT NULL,
    data bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace, name, number),
    FOREIGN KEY (workspace, name) REFERENCES services ON DELETE CASCADE
);

-- A name that was used: a service made again under it goes on counting, so that no old fact or decision beats it.
CREATE TABLE past_names (
    workspace text NOT NULL,
    name text NOT NULL,
    generation bigint NOT NULL,
    row_version bigint NOT NULL,
    state bytea NOT NULL,
    deleted_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace, name)
);

CREATE TABLE idempotency (
    workspace text NOT NULL,
    actor text NOT NULL,
    key text NOT NULL,
    request_hash bytea NOT NULL,
    answer bytea NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace, actor, key)
);
CREATE INDEX idempotency_by_age ON idempotency (at);

CREATE TABLE access_keys (
    id text PRIMARY KEY,
    workspace text NOT NULL DEFAULT 'default',
    sha256 text NOT NULL,
    row_version bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    revoked_at timestamptz
);

-- Something sealed with the master key: shows at start whether the key at hand is the right one.
CREATE TABLE vault_probe (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    sealed bytea NOT NULL
);

CREATE TABLE audit (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    workspace text NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    actor text NOT NULL,
    source text NOT NULL,
    request_id text NOT NULL,
    action text NOT NULL,
    target text NOT NULL,
    before_json text NOT NULL,
    after_json text NOT NULL
);
CREATE INDEX audit_by_target ON audit (workspace, target, id);

CREATE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit log is append-only';
END $$;
CREATE TRIGGER audit_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only();
