"""Runs, their journals, writes, approvals and dead letters, each row visible to its own tenant only.

What a tool was asked and what it answered is ``json``, not ``jsonb``: it is kept to the letter, so that its hash stays
true (jsonb rewrites numbers), and text that jsonb refuses (NUL) can't fail a whole batch.
"""

from pilothouse_dataplane.ledger.migrations.statements import execute

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE ledger_schema (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    oldest_code integer NOT NULL  -- the lowest newest-revision with which code still works on this schema
);
INSERT INTO ledger_schema (oldest_code) VALUES (2);

CREATE TABLE runs (
    tenant text NOT NULL CHECK (tenant <> ''),
    run_id text NOT NULL,
    session_id text NOT NULL,
    user_email text NOT NULL,
    asker json NOT NULL,
    text text NOT NULL,
    revision text NOT NULL,
    created timestamptz NOT NULL,
    status text NOT NULL CHECK (status IN ('active', 'parked', 'done')),
    holder text NOT NULL,          -- worker that drives it; '' where it was given up or is parked
    fence bigint NOT NULL,         -- rises with each claim
    lease_until timestamptz,       -- after this anybody may claim it
    parked_at timestamptz,
    parked_seconds double precision NOT NULL DEFAULT 0,
    opening bytea,
    outcome text,
    final bytea,
    ended timestamptz,
    PRIMARY KEY (tenant, run_id)
) WITH (fillfactor = 70);
-- No index holds lease_until, so that renewing it rewrites no index (HOT): the runs that have not ended are few.
CREATE INDEX runs_unended ON runs (tenant, created) WHERE status <> 'done';
CREATE INDEX runs_ended ON runs (tenant, ended) WHERE status = 'done';

CREATE TABLE run_journal (
    tenant text NOT NULL,
    run_id text NOT NULL,
    seq integer NOT NULL,
    entry bytea NOT NULL,
    PRIMARY KEY (tenant, run_id, seq)
);

CREATE TABLE tool_calls (
    tenant text NOT NULL,
    key text NOT NULL,             -- idempotency key, known to the external system
    run_id text NOT NULL,
    step_id text NOT NULL,
    tool text NOT NULL,
    arguments json NOT NULL,
    arguments_hash text NOT NULL,
    user_email text NOT NULL,
    approval_id text,
    created timestamptz NOT NULL,
    outcome text,                  -- NULL: not known
    result json,
    ended timestamptz,
    PRIMARY KEY (tenant, key)
) WITH (fillfactor = 80);
CREATE INDEX tool_calls_of_run ON tool_calls (tenant, run_id);
CREATE INDEX tool_calls_same_change ON tool_calls (tenant, user_email, arguments_hash, created)
    WHERE outcome = 'succeeded';

CREATE TABLE approvals (
    tenant text NOT NULL,
    approval_id text NOT NULL,
    run_id text NOT NULL,
    session_id text NOT NULL,
    user_email text NOT NULL,      -- who asked for the write
    step_id text NOT NULL,
    tool text NOT NULL,
    summary text NOT NULL,
    arguments json NOT NULL,
    arguments_hash text NOT NULL,
    decide_by text NOT NULL,       -- User, Manager, Group
    approver text NOT NULL,
    reason text NOT NULL,
    origins json NOT NULL,
    expires_in double precision NOT NULL,
    created timestamptz NOT NULL,
    expires timestamptz NOT NULL,
    approved boolean,
    decided_by text NOT NULL DEFAULT '',   -- '' with approved = false: lapsed
    decided_at timestamptz,
    used_by text,                  -- key of the one write that it allowed
    used_at timestamptz,
    PRIMARY KEY (tenant, approval_id)
);
CREATE INDEX approvals_of_run ON approvals (tenant, run_id);
CREATE INDEX approvals_waiting ON approvals (tenant, created) WHERE approved IS NULL;

CREATE TABLE dead_letters (
    tenant text NOT NULL,
    id text NOT NULL,
    run_id text NOT NULL,
    session_id text NOT NULL,
    step_id text NOT NULL,
    asker json NOT NULL,
    tool text NOT NULL,
    arguments json NOT NULL,
    key text NOT NULL,
    error text NOT NULL,
    attempts integer NOT NULL,
    breaker_state text NOT NULL,
    in_doubt boolean NOT NULL,
    created timestamptz NOT NULL,
    state text NOT NULL CHECK (state IN ('open', 'replayed', 'discarded')),
    resolved timestamptz,
    resolved_by text NOT NULL DEFAULT '',
    resolution text NOT NULL DEFAULT '',
    PRIMARY KEY (tenant, id),
    UNIQUE (tenant, run_id, step_id)
);
CREATE INDEX dead_letters_newest ON dead_letters (tenant, created);
CREATE INDEX dead_letters_open ON dead_letters (tenant, created) WHERE state = 'open';
"""

TENANT_TABLES = ("runs", "run_journal", "tool_calls", "approvals", "dead_letters")

# What a worker may do. Who asked what, and what was intended, can't be altered once it is written.
GRANTS = """
GRANT USAGE ON SCHEMA public TO pilothouse_worker;
GRANT SELECT ON ledger_schema TO pilothouse_worker;
GRANT SELECT, INSERT ON runs, tool_calls, approvals, dead_letters TO pilothouse_worker;
GRANT UPDATE (status, holder, fence, lease_until, parked_at, parked_seconds, opening, outcome, final, ended)
    ON runs TO pilothouse_worker;
GRANT SELECT, INSERT, DELETE ON run_journal TO pilothouse_worker;
GRANT UPDATE (outcome, result, ended) ON tool_calls TO pilothouse_worker;
GRANT UPDATE (approved, decided_by, decided_at, used_by, used_at) ON approvals TO pilothouse_worker;
GRANT UPDATE (state, resolved, resolved_by, resolution) ON dead_letters TO pilothouse_worker;
"""


def upgrade() -> None:
    execute(TABLES)
    for table in TENANT_TABLES:
        execute(
            f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;\n"
            f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY;\n"
            f"CREATE POLICY own_tenant ON {table} USING (tenant = current_setting('pilothouse.tenant', true))"
            " WITH CHECK (tenant = current_setting('pilothouse.tenant', true));"
        )
    execute(GRANTS)
