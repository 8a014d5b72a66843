-- Tokens beside the one named `default`, which is in the owner's row. Values are sealed by the process.
CREATE TABLE tokens (
    workspace text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('service', 'group')),
    owner text NOT NULL,
    name text NOT NULL,
    sealed bytea NOT NULL,
    expires_at timestamptz,
    rate_limit_qps integer NOT NULL DEFAULT 0,
    rotated boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (workspace, kind, owner, name)
);
COMMENT ON COLUMN tokens.rotated IS 'an older value of another token, which is good until it expires';
CREATE INDEX tokens_by_expiry ON tokens (expires_at) WHERE expires_at IS NOT NULL;
