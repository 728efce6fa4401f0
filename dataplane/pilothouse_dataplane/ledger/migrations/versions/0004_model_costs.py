"""What each call of a model cost, and each run's total. A call is booked once, however often it is told.

``model_calls`` only grows: a worker may insert and read, never change. It is partitioned by month of ``at`` through its
key's shape alone (``day`` is in it), so that it can become a partitioned table without a new key; until then a day is
deleted by ``model_calls_by_day``.

``runs``' totals are kept by ``ledger_book_1`` in the transaction that inserts the calls: they are the sum of the run's
rows, also of those that are booked after the run has ended.
"""

from pilothouse_dataplane.ledger.migrations.statements import execute

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TABLE = """
CREATE TABLE model_calls (
    tenant text NOT NULL CHECK (tenant <> ''),
    day date NOT NULL,             -- of "at", in UTC; what is deleted and later partitioned by
    id text NOT NULL,              -- <run>/<claim>.<number>
    at timestamptz NOT NULL,       -- when the call ended, by the worker's clock; the same in its event
    run_id text NOT NULL,
    session_id text NOT NULL,
    user_email text NOT NULL,
    revision text NOT NULL,
    tier text NOT NULL,
    provider text NOT NULL,
    model text NOT NULL,
    reason text NOT NULL,          -- why this tier
    fallback text NOT NULL,        -- why another target did not answer before it; '' for the first
    cached boolean NOT NULL,       -- an earlier answer was used again: nothing was asked, nothing paid
    aborted boolean NOT NULL,
    escalated boolean NOT NULL,
    estimated boolean NOT NULL,    -- the tokens were counted here
    input_tokens bigint NOT NULL CHECK (input_tokens >= 0),
    cached_input_tokens bigint NOT NULL CHECK (cached_input_tokens >= 0),
    output_tokens bigint NOT NULL CHECK (output_tokens >= 0),
    cost_micros bigint NOT NULL CHECK (cost_micros >= 0),
    saved_micros bigint NOT NULL CHECK (saved_micros >= 0),
    duration_ms bigint NOT NULL,
    first_token_ms bigint NOT NULL,
    PRIMARY KEY (tenant, day, id)
);
CREATE INDEX model_calls_of_run ON model_calls (tenant, run_id);
CREATE INDEX model_calls_by_day ON model_calls (day);
ALTER TABLE model_calls ENABLE ROW LEVEL SECURITY;
ALTER TABLE model_calls FORCE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON model_calls USING (tenant = current_setting('pilothouse.tenant', true))
    WITH CHECK (tenant = current_setting('pilothouse.tenant', true));
GRANT SELECT, INSERT ON model_calls TO pilothouse_worker;

ALTER TABLE runs
    ADD COLUMN model_calls bigint NOT NULL DEFAULT 0,
    ADD COLUMN input_tokens bigint NOT NULL DEFAULT 0,
    ADD COLUMN output_tokens bigint NOT NULL DEFAULT 0,
    ADD COLUMN cost_micros bigint NOT NULL DEFAULT 0;
GRANT UPDATE (model_calls, input_tokens, output_tokens, cost_micros) ON runs TO pilothouse_worker;
"""

BOOK = """
-- Books calls, each once, and adds them to their runs' totals. Returns how many were new.
-- Rows of runs are locked first, in the order in which every other function does.
CREATE FUNCTION ledger_book_1(p_calls json) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    v_tenant text := current_setting('pilothouse.tenant');
    v_new integer;
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    PERFORM FROM runs r WHERE r.tenant = v_tenant
        AND r.run_id IN (SELECT DISTINCT c.run_id FROM json_to_recordset(p_calls) AS c(run_id text))
        ORDER BY r.run_id FOR NO KEY UPDATE;
    WITH told AS (
        SELECT * FROM json_to_recordset(p_calls) AS c(
            id text, at timestamptz, run_id text, session_id text, user_email text, revision text, tier text,
            provider text, model text, reason text, fallback text, cached boolean, aborted boolean, escalated boolean,
            estimated boolean, input_tokens bigint, cached_input_tokens bigint, output_tokens bigint,
            cost_micros bigint, saved_micros bigint, duration_ms bigint, first_token_ms bigint)
    ), booked AS (
        INSERT INTO model_calls (tenant, day, id, at, run_id, session_id, user_email, revision, tier, provider, model,
                                 reason, fallback, cached, aborted, escalated, estimated, input_tokens,
                                 cached_input_tokens, output_tokens, cost_micros, saved_micros, duration_ms,
                                 first_token_ms)
            SELECT v_tenant, (at AT TIME ZONE 'UTC')::date, id, at, run_id, session_id, user_email, revision, tier,
                   provider, model, reason, fallback, cached, aborted, escalated, estimated, input_tokens,
                   cached_input_tokens, output_tokens, cost_micros, saved_micros, duration_ms, first_token_ms
                FROM told
            ON CONFLICT DO NOTHING
            RETURNING run_id, cached, input_tokens, output_tokens, cost_micros
    ), sums AS (
        SELECT run_id, count(*) FILTER (WHERE NOT cached) AS calls, sum(input_tokens) AS sent,
               sum(output_tokens) AS wrote, sum(cost_micros) AS cost FROM booked GROUP BY run_id
    ), added AS (
        UPDATE runs r SET model_calls = r.model_calls + s.calls, input_tokens = r.input_tokens + s.sent,
                          output_tokens = r.output_tokens + s.wrote, cost_micros = r.cost_micros + s.cost
            FROM sums s WHERE r.tenant = v_tenant AND r.run_id = s.run_id
    )
    SELECT count(*) INTO v_new FROM booked;
    RETURN v_new;
END $$;
REVOKE ALL ON FUNCTION ledger_book_1 FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ledger_book_1 TO pilothouse_worker;
"""


def upgrade() -> None:
    execute(TABLE)
    execute(BOOK)
