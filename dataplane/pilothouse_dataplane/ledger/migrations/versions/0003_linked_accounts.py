"""Linked accounts, sealed by the workers under the tenant's keys (``credentials.sealing``): no token can be read here.

Row-level security as for the ledger's tables. ``key_id`` is in the clear so that a key's last entry can be told.
"""

from pilothouse_dataplane.ledger.migrations.statements import execute

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TABLE = """
CREATE TABLE linked_accounts (
    tenant text NOT NULL CHECK (tenant <> ''),
    user_email text NOT NULL,      -- in lower case
    connector text NOT NULL,
    key_id integer NOT NULL,       -- number of the tenant's key that sealed it
    sealed bytea NOT NULL,         -- nonce and AES-256-GCM of the account
    version bigint NOT NULL,       -- rises with each change; no two entries of a user's connector ever share one
    expires_at timestamptz,        -- of the access token; NULL: not known
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant, user_email, connector)
);
CREATE INDEX linked_accounts_by_key ON linked_accounts (tenant, key_id);
ALTER TABLE linked_accounts ENABLE ROW LEVEL SECURITY;
ALTER TABLE linked_accounts FORCE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON linked_accounts USING (tenant = current_setting('pilothouse.tenant', true))
    WITH CHECK (tenant = current_setting('pilothouse.tenant', true));
GRANT SELECT, INSERT, DELETE ON linked_accounts TO pilothouse_worker;
GRANT UPDATE (key_id, sealed, version, expires_at, updated_at) ON linked_accounts TO pilothouse_worker;
"""


def upgrade() -> None:
    execute(TABLE)
