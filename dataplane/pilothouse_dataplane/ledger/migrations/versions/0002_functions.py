"""What a worker asks of the ledger, each a function: one round trip, one transaction.

The order of locks is the same everywhere: rows of ``runs`` first (several by run_id), then whatever hangs on them.
Every record of a run and every claim of it lock its row in a mode in which they wait for each other (FOR NO KEY UPDATE;
KEY SHARE would let them pass). A claim that waited for a record then sees it, because each statement of a plpgsql
function reads anew (READ COMMITTED): one statement that locks and reads would read what was there before it waited.

Times are ``clock_timestamp()``: ``now()`` stands still at the start of the transaction, before any wait for a lock.
The functions run with the caller's rights, so row-level security binds them.
"""

from pilothouse_dataplane.ledger.migrations.statements import execute

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

CLAIM = """
CREATE FUNCTION ledger_claim_1(
    p_run text, p_worker text, p_lost text, p_lease double precision,
    -- NULL where only a known run is claimed:
    p_session text, p_email text, p_asker json, p_text text, p_revision text,
    OUT verdict text,  -- claimed, held, finished, unknown
    OUT holder text, OUT final bytea, OUT fence bigint, OUT run json, OUT opening bytea, OUT journal bytea[],
    OUT next_seq integer, OUT writes json, OUT approvals json,
    OUT elapsed double precision, OUT parked_seconds double precision
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_tenant text := current_setting('pilothouse.tenant');
    v_lease interval := make_interval(secs => p_lease);
    r runs%ROWTYPE;
BEGIN
    IF p_session IS NOT NULL THEN
        INSERT INTO runs (tenant, run_id, session_id, user_email, asker, text, revision, created, status, holder, fence,
                          lease_until)
        VALUES (v_tenant, p_run, p_session, p_email, p_asker, p_text, p_revision, clock_timestamp(), 'active', p_worker,
                1, clock_timestamp() + v_lease)
        ON CONFLICT (tenant, run_id) DO NOTHING;
        IF FOUND THEN
            -- Not waited for: a claim that PostgreSQL forgets in a crash fences its run, which is then asked anew.
            -- Whatever is durable later, an intent above all, makes it durable first: the log is one sequence.
            PERFORM set_config('synchronous_commit', 'off', true);
            verdict := 'claimed'; fence := 1; next_seq := 0; elapsed := 0; parked_seconds := 0;
            RETURN;
        END IF;
    END IF;
    SELECT * INTO r FROM runs WHERE tenant = v_tenant AND run_id = p_run FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        verdict := 'unknown';
        RETURN;
    ELSIF r.status = 'done' THEN
        verdict := 'finished'; final := r.final;
        RETURN;
    ELSIF r.status = 'active' AND r.holder NOT IN ('', p_worker, p_lost) AND r.lease_until > clock_timestamp() THEN
        verdict := 'held'; holder := r.holder;
        RETURN;
    END IF;
    IF r.status = 'parked' THEN
        r.parked_seconds := r.parked_seconds + extract(epoch FROM clock_timestamp() - r.parked_at);
    END IF;
    UPDATE runs SET status = 'active', holder = p_worker, fence = r.fence + 1,
                    lease_until = clock_timestamp() + v_lease, parked_at = NULL, parked_seconds = r.parked_seconds
        WHERE tenant = v_tenant AND run_id = p_run;
    PERFORM ledger_lapse_1(p_run);
    verdict := 'claimed'; fence := r.fence + 1; opening := r.opening; parked_seconds := r.parked_seconds;
    elapsed := extract(epoch FROM clock_timestamp() - r.created) - r.parked_seconds;
    run := json_build_object('session_id', r.session_id, 'asker', r.asker, 'text', r.text, 'revision', r.revision);
    SELECT array_agg(j.entry ORDER BY j.seq), coalesce(max(j.seq) + 1, 0) INTO journal, next_seq
        FROM run_journal j WHERE j.tenant = v_tenant AND j.run_id = p_run;
    SELECT json_agg(row_to_json(t) ORDER BY t.created, t.key) INTO writes
        FROM tool_calls t WHERE t.tenant = v_tenant AND t.run_id = p_run;
    SELECT json_agg(row_to_json(a) ORDER BY a.created, a.approval_id) INTO approvals
        FROM approvals a WHERE a.tenant = v_tenant AND a.run_id = p_run;
END $$;
"""

LAPSE = """
-- What nobody answered in time counts as refused by nobody. The caller holds the run's lock.
CREATE FUNCTION ledger_lapse_1(p_run text) RETURNS void LANGUAGE sql AS $$
    UPDATE approvals SET approved = false, decided_at = expires
        WHERE tenant = current_setting('pilothouse.tenant') AND run_id = p_run AND approved IS NULL
          AND expires <= clock_timestamp()
$$;
"""

HOLDS = """
-- Locks the run; whether this claim of it still stands.
CREATE FUNCTION ledger_holds_1(p_run text, p_fence bigint, p_worker text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM runs WHERE tenant = current_setting('pilothouse.tenant') AND run_id = p_run AND fence = p_fence
        AND holder = p_worker AND status = 'active' FOR NO KEY UPDATE;
    RETURN FOUND;
END $$;
"""

FLUSH = """
-- A worker's queue, in one transaction. Runs are (id, fence); the other arrays name a run by its place in these.
-- Asked twice it does nothing the second time, for its answer may be lost.
CREATE FUNCTION ledger_flush_1(
    p_worker text, p_lazy boolean, p_runs text[], p_fences bigint[],
    p_open_run integer[], p_open bytea[],
    p_entry_run integer[], p_entry_seq integer[], p_entry bytea[],
    p_write_run integer[], p_write_key text[], p_write_step text[], p_write_tool text[], p_write_arguments text[],
    p_write_hash text[], p_write_user text[], p_write_approval text[],
    p_outcome_run integer[], p_outcome_key text[], p_outcome text[], p_outcome_result text[],
    p_final_run integer[], p_final_outcome text[], p_final bytea[],
    OUT held integer[],   -- places of the runs whose claim stands; of the others nothing was recorded
    OUT granted text[]    -- keys of the writes that may leave
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_tenant text := current_setting('pilothouse.tenant');
    v_now timestamptz;
    v_live integer[];  -- held, and not finished before
    v_finished text[];
BEGIN
    IF p_lazy THEN
        PERFORM set_config('synchronous_commit', 'off', true);
    END IF;
    SELECT array_agg(l.place), array_agg(l.place) FILTER (WHERE l.status = 'active') INTO held, v_live FROM (
        SELECT b.place::integer, r.status
            FROM unnest(p_runs, p_fences) WITH ORDINALITY AS b(run_id, fence, place)
            JOIN runs r ON r.tenant = v_tenant AND r.run_id = b.run_id AND r.fence = b.fence
            WHERE r.holder = p_worker AND r.status IN ('active', 'done')
            ORDER BY r.run_id FOR NO KEY UPDATE OF r
    ) l;
    v_now := clock_timestamp();
    IF v_live IS NULL THEN
        RETURN;
    END IF;
    IF cardinality(p_open_run) > 0 THEN
        UPDATE runs r SET opening = o.opening FROM unnest(p_open_run, p_open) AS o(place, opening)
            WHERE o.place = ANY (v_live) AND r.tenant = v_tenant AND r.run_id = p_runs[o.place] AND r.opening IS NULL;
    END IF;
    IF cardinality(p_entry_run) > 0 THEN
        INSERT INTO run_journal (tenant, run_id, seq, entry)
            SELECT v_tenant, p_runs[e.place], e.seq, e.entry
                FROM unnest(p_entry_run, p_entry_seq, p_entry) AS e(place, seq, entry) WHERE e.place = ANY (v_live)
            ON CONFLICT DO NOTHING;
    END IF;
    IF cardinality(p_write_run) > 0 THEN
        UPDATE approvals a SET used_by = w.key, used_at = v_now
            FROM unnest(p_write_run, p_write_key, p_write_hash, p_write_approval) AS w(place, key, hash, approval_id)
            WHERE w.place = ANY (v_live) AND a.tenant = v_tenant AND a.approval_id = w.approval_id
              AND a.run_id = p_runs[w.place] AND a.approved AND a.arguments_hash = w.hash AND a.used_by IS NULL;
        INSERT INTO tool_calls (tenant, key, run_id, step_id, tool, arguments, arguments_hash, user_email, approval_id,
                                created)
            SELECT v_tenant, w.key, p_runs[w.place], w.step_id, w.tool, w.arguments::json, w.hash, w.user_email,
                   w.approval_id, v_now
                FROM unnest(p_write_run, p_write_key, p_write_step, p_write_tool, p_write_arguments, p_write_hash,
                            p_write_user, p_write_approval)
                    AS w(place, key, step_id, tool, arguments, hash, user_email, approval_id)
                WHERE w.place = ANY (v_live) AND (w.approval_id IS NULL OR EXISTS (
                    SELECT FROM approvals a WHERE a.tenant = v_tenant AND a.approval_id = w.approval_id
                        AND a.run_id = p_runs[w.place] AND a.arguments_hash = w.hash AND a.used_by = w.key))
            ON CONFLICT DO NOTHING;
        SELECT array_agg(w.key) INTO granted
            FROM unnest(p_write_run, p_write_key, p_write_hash, p_write_approval) AS w(place, key, hash, approval_id)
            JOIN tool_calls t ON t.tenant = v_tenant AND t.key = w.key
            WHERE w.place = ANY (v_live) AND t.arguments_hash = w.hash AND t.outcome IS DISTINCT FROM 'succeeded'
              AND (t.run_id = p_runs[w.place] OR t.outcome IS NOT NULL)
              AND (w.approval_id IS NULL OR EXISTS (
                    SELECT FROM approvals a WHERE a.tenant = v_tenant AND a.approval_id = w.approval_id
                        AND a.run_id = p_runs[w.place] AND a.arguments_hash = w.hash AND a.used_by = w.key));
    END IF;
    IF cardinality(p_outcome_run) > 0 THEN
        UPDATE tool_calls t SET outcome = o.outcome, result = o.result::json, ended = v_now
            FROM unnest(p_outcome_run, p_outcome_key, p_outcome, p_outcome_result) AS o(place, key, outcome, result)
            WHERE o.place = ANY (v_live) AND t.tenant = v_tenant AND t.key = o.key AND t.run_id = p_runs[o.place]
              AND t.outcome IS NULL;
    END IF;
    IF cardinality(p_final_run) > 0 THEN
        UPDATE runs r SET status = 'done', outcome = f.outcome, final = f.final, opening = NULL, ended = v_now
            FROM unnest(p_final_run, p_final_outcome, p_final) AS f(place, outcome, final)
            WHERE f.place = ANY (v_live) AND r.tenant = v_tenant AND r.run_id = p_runs[f.place];
        SELECT array_agg(p_runs[f.place]) INTO v_finished FROM unnest(p_final_run) AS f(place)
            WHERE f.place = ANY (v_live);
        DELETE FROM run_journal WHERE tenant = v_tenant AND run_id = ANY (v_finished);
        UPDATE approvals SET approved = false, decided_at = v_now
            WHERE tenant = v_tenant AND run_id = ANY (v_finished) AND approved IS NULL;
    END IF;
END $$;
"""

LEASES = """
-- Places of the runs whose claim stands; their leases are renewed.
CREATE FUNCTION ledger_renew_1(p_worker text, p_runs text[], p_fences bigint[], p_lease double precision)
RETURNS integer[] LANGUAGE plpgsql AS $$
DECLARE
    v_tenant text := current_setting('pilothouse.tenant');
    v_held integer[];
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    SELECT array_agg(l.place) INTO v_held FROM (
        SELECT b.place::integer FROM unnest(p_runs, p_fences) WITH ORDINALITY AS b(run_id, fence, place)
            JOIN runs r ON r.tenant = v_tenant AND r.run_id = b.run_id AND r.fence = b.fence
            WHERE r.holder = p_worker AND r.status = 'active'
            ORDER BY r.run_id FOR NO KEY UPDATE OF r
    ) l;
    UPDATE runs SET lease_until = clock_timestamp() + make_interval(secs => p_lease)
        WHERE tenant = v_tenant AND run_id IN (SELECT p_runs[place] FROM unnest(v_held) AS h(place));
    RETURN v_held;
END $$;

CREATE FUNCTION ledger_release_1(p_run text, p_fence bigint, p_worker text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    -- '' as the holder: given up before, and the answer was lost.
    UPDATE runs SET holder = '', lease_until = NULL
        WHERE tenant = current_setting('pilothouse.tenant') AND run_id = p_run AND fence = p_fence
          AND holder IN ('', p_worker) AND status = 'active';
    RETURN FOUND;
END $$;

CREATE FUNCTION ledger_abandoned_1(p_lease double precision, p_mine text[], p_limit integer)
RETURNS SETOF text LANGUAGE sql STABLE AS $$
    SELECT r.run_id FROM runs r
        WHERE r.tenant = current_setting('pilothouse.tenant') AND r.status <> 'done' AND r.run_id <> ALL (p_mine)
          AND CASE r.status
              WHEN 'parked' THEN NOT EXISTS (
                  SELECT FROM approvals a WHERE a.tenant = r.tenant AND a.run_id = r.run_id AND a.approved IS NULL
                      AND a.expires > clock_timestamp())
              -- Nobody could renew a lease while the server was down: give the holders the time to.
              ELSE r.holder = '' OR (r.lease_until <= clock_timestamp()
                  AND pg_postmaster_start_time() < clock_timestamp() - make_interval(secs => p_lease))
              END
        ORDER BY r.created LIMIT p_limit
$$;
"""

APPROVALS = """
CREATE FUNCTION ledger_ask_1(
    p_run text, p_fence bigint, p_worker text, p_id text[], p_step text[], p_tool text[], p_summary text[],
    p_arguments text[], p_hash text[], p_by text[], p_approver text[], p_reason text[], p_origins text[],
    p_expires_in double precision[],
    OUT held boolean, OUT approvals json
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_tenant text := current_setting('pilothouse.tenant');
    v_now timestamptz;
BEGIN
    held := ledger_holds_1(p_run, p_fence, p_worker);
    IF NOT held THEN
        RETURN;
    END IF;
    v_now := clock_timestamp();
    PERFORM ledger_lapse_1(p_run);
    INSERT INTO approvals (tenant, approval_id, run_id, session_id, user_email, step_id, tool, summary, arguments,
                           arguments_hash, decide_by, approver, reason, origins, expires_in, created, expires)
        SELECT v_tenant, q.id, p_run, r.session_id, r.user_email, q.step, q.tool, q.summary, q.arguments::json, q.hash,
               q.by, q.approver, q.reason, q.origins::json, q.expires_in, v_now,
               v_now + make_interval(secs => q.expires_in)
            FROM unnest(p_id, p_step, p_tool, p_summary, p_arguments, p_hash, p_by, p_approver, p_reason, p_origins,
                        p_expires_in)
                AS q(id, step, tool, summary, arguments, hash, by, approver, reason, origins, expires_in)
            JOIN runs r ON r.tenant = v_tenant AND r.run_id = p_run
        ON CONFLICT DO NOTHING;
    SELECT json_agg(row_to_json(a)) INTO approvals FROM approvals a
        WHERE a.tenant = v_tenant AND a.run_id = p_run AND a.approval_id = ANY (p_id);
END $$;

CREATE FUNCTION ledger_park_1(
    p_run text, p_fence bigint, p_worker text, p_told text[],
    OUT verdict text,  -- parked, news, fenced
    OUT news json
) LANGUAGE plpgsql AS $$
DECLARE
    v_tenant text := current_setting('pilothouse.tenant');
    r runs%ROWTYPE;
BEGIN
    -- The lock makes a decision wait for this, or this for it: one of the two sees the other.
    SELECT * INTO r FROM runs WHERE tenant = v_tenant AND run_id = p_run AND fence = p_fence FOR NO KEY UPDATE;
    IF FOUND AND r.status = 'parked' THEN
        verdict := 'parked';  -- asked twice
        RETURN;
    ELSIF NOT FOUND OR r.status <> 'active' OR r.holder <> p_worker THEN
        verdict := 'fenced';
        RETURN;
    END IF;
    PERFORM ledger_lapse_1(p_run);
    SELECT json_agg(row_to_json(a) ORDER BY a.created, a.approval_id) INTO news FROM approvals a
        WHERE a.tenant = v_tenant AND a.run_id = p_run AND a.approved IS NOT NULL AND a.approval_id <> ALL (p_told);
    IF news IS NOT NULL THEN
        verdict := 'news';
        RETURN;
    END IF;
    UPDATE runs SET status = 'parked', parked_at = clock_timestamp(), holder = '', lease_until = NULL
        WHERE tenant = v_tenant AND run_id = p_run;
    verdict := 'parked';
END $$;

CREATE FUNCTION ledger_decide_1(
    p_id text, p_approved boolean, p_by text,
    OUT verdict text,  -- decided, already_decided, expired, not_found
    OUT approval json, OUT resume boolean
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_tenant text := current_setting('pilothouse.tenant');
    v_run text;
    v_status text;
    a approvals%ROWTYPE;
BEGIN
    SELECT run_id INTO v_run FROM approvals WHERE tenant = v_tenant AND approval_id = p_id;
    IF NOT FOUND THEN
        verdict := 'not_found';
        RETURN;
    END IF;
    SELECT status INTO v_status FROM runs WHERE tenant = v_tenant AND run_id = v_run FOR NO KEY UPDATE;
    PERFORM ledger_lapse_1(v_run);
    UPDATE approvals SET approved = p_approved, decided_by = p_by, decided_at = clock_timestamp()
        WHERE tenant = v_tenant AND approval_id = p_id AND approved IS NULL;
    IF FOUND THEN
        verdict := 'decided';
    END IF;
    SELECT * INTO a FROM approvals WHERE tenant = v_tenant AND approval_id = p_id;
    verdict := coalesce(verdict, CASE a.decided_by WHEN '' THEN 'expired' ELSE 'already_decided' END);
    approval := row_to_json(a);
    resume := v_status = 'parked' AND NOT EXISTS (
        SELECT FROM approvals WHERE tenant = v_tenant AND run_id = v_run AND approved IS NULL);
END $$;
"""

# In an order in which each finds those that it calls.
FUNCTIONS = (LAPSE, HOLDS, CLAIM, FLUSH, LEASES, APPROVALS)
NAMES = ("lapse", "holds", "claim", "flush", "renew", "release", "abandoned", "ask", "park", "decide")


def upgrade() -> None:
    for function in FUNCTIONS:
        execute(function)
    for name in NAMES:
        execute(f"REVOKE ALL ON FUNCTION ledger_{name}_1 FROM PUBLIC")
        execute(f"GRANT EXECUTE ON FUNCTION ledger_{name}_1 TO pilothouse_worker")
