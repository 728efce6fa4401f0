"""The limits' decisions inside Redis: one Lua script, so that all workers of a tenant share one truth.

**Windows.** Requests and tokens a minute are sliding windows, not token buckets: a bucket as large as a minute's limit
lets twice the limit through in one minute (all that was saved, and all that flows in). A window is kept as sums of half
a second. A sum is dropped when all of it is older than a minute, never earlier: so no minute, wherever it begins, holds
more than the limit, and at most half a second (0.8%) is counted for too long.

**Fair shares.** Who is refused because the tenant's limit is reached, *waits*, until a minute after the moment at which
she was told to come back (less, and a quick user would take a slow one's part before she has asked for it). Be L the
limit, U what is used in the window, S the part of it by users who don't wait, and h the number of those who do: then
``level = (L - S) / h`` is what each of those who wait may have, the water level of max-min fairness. While somebody
waits, a user is let through only if she stays within the level, or has had no more than the least served of those who
wait. Hence

- alone, a user may have all of the limit: (L - S) / 1 is not reached before U = L;
- under contention nobody gets more than an equal share of what the modest leave, unless all who wait have had as much;
- the least served of those who wait is let through whenever there is room. What lies idle is kept for them.

The level is worked out anew when somebody begins to wait, and else every 0.1 s (and 1 ms for each who waits).
Runs at a time are shared in the same way; as they end within seconds, who was refused waits for seconds only. Of the
day's money, above the soft budget, nobody gets more than an equal share among the users of this day.

**Exactly once.** A worker numbers its calls and sends one at a time. The script keeps the last answer of each worker: a
call that is sent again, because its answer was lost, gets the same answer and books nothing twice.

**Keys**, all under one hash tag and all with an expiry; only the first is named in KEYS, the others derive from it and
so lie in the same slot: ``…:tenant`` and ``…:user:<id>`` (windows, 2 minutes), ``…:runs`` (leases),
``…:waiting:<what>``, ``…:day:<days since 1970>`` (micro-dollars by user; "" is the sum, "held" what is reserved and not
settled, "restored" what workers told after a loss; 2 days), ``…:workers`` (when each was last heard),
``…:answer:<worker>`` (10 minutes).

The call, ``ARGV[1]``, is JSON: ``worker``, ``number``, ``beat`` (count me among the living), ``now`` (milliseconds; 0:
the server's own clock), ``limit`` and ``ops``, each an array:

=========================================================== ===========================================================
``["take", user, requests, tokens, cost, lease, ttl, 0|1]`` let a request through (1: whatever the limits say)
``["book", user, bucket, requests, tokens, day, cost, held]`` add to what was let through; less than 0: give back
``["lease", user, lease, ttl]``                             a run still goes on; ttl 0: it has ended
``["spent", day, cost]``                                    the store has lost the day: what a worker knows of it
=========================================================== ===========================================================

The answer is JSON: ``now``, ``day``, ``workers`` (alive; only with ``beat``), ``spent`` (of the day, held included),
``used`` (the tenant's requests and tokens in the window; both only where the ops touched them), ``lost`` (the store
knows nothing of this worker's earlier calls), and ``results``, one for each op: ``[1, bucket, day, 0|1 above the soft
budget]``, or ``[0, reason, milliseconds to wait]``.
"""

from __future__ import annotations

BUCKET_MS = 500
BUCKETS = 120
"""Of a window: a minute. The one that is being filled comes on top."""
DAY_MS = 86_400_000
ALIVE_MS = 30_000
"""A worker that was not heard for so long is not counted."""
RUNS_RETRY_MS = 3_000
"""When to come back for a run's place: nobody knows when a run ends, most within seconds."""
HELD_RETRY_MS = 5_000
"""When to come back where calls under way hold the rest of the budget: they are settled within seconds."""
GRACE_MS = 60_000
"""A refused user counts as waiting for so long after the moment at which she was told to come back."""

SCRIPT = """
local base = KEYS[1]
local call = cjson.decode(ARGV[1])
local kept = base .. ':answer:' .. call.worker
local number = string.format('%d ', call.number)
local last = redis.call('GET', kept)
if last and string.sub(last, 1, #number) == number then
  return string.sub(last, #number + 1)
end

local limit, now = call.limit, call.now
local windowed_by_all = limit.requests > 0 or limit.tokens > 0
local windowed_by_user = windowed_by_all or limit.user_requests > 0 or limit.user_tokens > 0
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local current = math.floor(now / @BUCKET_MS@)
local oldest = current - @BUCKETS@
local today = math.floor(now / @DAY_MS@)
local now_r, now_t = current .. 'r', current .. 't'  -- fields of the bucket that is being filled

-- windows: {key, first = oldest bucket that may be there, requests, tokens, new = {bucket: {requests, tokens}},
-- now_r, now_t = what the bucket that is being filled held, waiting = until when users of the tenant wait, at most}
local windows = {}
local function window(key)
  local w = windows[key]
  if w then return w end
  local v = redis.call('HMGET', key, 'first', 'requests', 'tokens', 'waiting', now_r, now_t)
  w = {key = key, first = tonumber(v[1]), requests = tonumber(v[2]) or 0, tokens = tonumber(v[3]) or 0, new = {},
       waiting = tonumber(v[4]), now_r = tonumber(v[5]) or 0, now_t = tonumber(v[6]) or 0,
       fresh = not v[5] and not v[6]}
  windows[key] = w
  if w.first and w.first >= oldest and w.first <= current then return w end
  if w.first and w.first < oldest and oldest - w.first <= @BUCKETS@ then
    local fields = {}
    for b = w.first, oldest - 1 do
      fields[#fields + 1] = b .. 'r'
      fields[#fields + 1] = b .. 't'
    end
    local old = redis.call('HMGET', key, unpack(fields))
    for i = 1, #old, 2 do
      w.requests = w.requests - (tonumber(old[i]) or 0)
      w.tokens = w.tokens - (tonumber(old[i + 1]) or 0)
    end
    redis.call('HDEL', key, unpack(fields))
    w.first = oldest
  else  -- new, all of it too old, or written by a clock that has since been put back by more than a minute
    if w.first then redis.call('DEL', key) end
    w.requests, w.tokens, w.now_r, w.now_t, w.fresh = 0, 0, 0, 0, true
    w.first = current
  end
  w.changed = true
  return w
end
local function add(w, bucket, requests, tokens)
  if bucket < oldest then  -- a refund has lapsed; what is owed counts now
    bucket, requests, tokens = current, math.max(requests, 0), math.max(tokens, 0)
  end
  if bucket > current then bucket = current end
  if bucket < w.first then w.first, w.read = bucket, nil end
  local b = w.new[bucket]
  if not b then b = {0, 0}; w.new[bucket] = b end
  b[1], b[2] = b[1] + requests, b[2] + tokens
  w.requests, w.tokens, w.changed = w.requests + requests, w.tokens + tokens, true
end
-- milliseconds until ``need`` of what is used has left the window
local function wait(w, kind, need)
  local index = kind == 'requests' and 1 or 2
  for b = w.first, current do
    if b > (w.read or 0) then  -- a few at a time: under contention the oldest are mostly enough
      local fields, till = {}, math.min(b + 7, current)
      for each = b, till do
        fields[#fields + 1] = each .. 'r'
        fields[#fields + 1] = each .. 't'
      end
      w.old, w.read = w.old or {}, till
      for i, value in ipairs(redis.call('HMGET', w.key, unpack(fields))) do
        w.old[(b - w.first) * 2 + i] = tonumber(value) or 0
      end
    end
    local fresh = w.new[b]
    need = need - w.old[(b - w.first) * 2 + index] - (fresh and fresh[index] or 0)
    if need <= 0 then return math.max(1, (b + @BUCKETS@ + 1) * @BUCKET_MS@ - now) end
  end
  return 60000
end

local tenant_key = base .. ':tenant'
local function user_key(user) return base .. ':user:' .. user end

local leases
local function runs()  -- of all, and by user
  if leases then return leases end
  redis.call('ZREMRANGEBYSCORE', base .. ':runs', '-inf', now)
  leases = {all = redis.call('ZCARD', base .. ':runs')}
  return leases
end
local function runs_of(user)
  local r = runs()
  if not r.of then
    r.of = {}
    for _, member in ipairs(redis.call('ZRANGE', base .. ':runs', 0, -1)) do
      local who = string.match(member, '^(%S+) ')
      if who then r.of[who] = (r.of[who] or 0) + 1 end
    end
  end
  return r.of[user] or 0
end
local function used(kind, user)
  if kind == 'runs' then return runs_of(user) end
  return math.max(0, window(user_key(user))[kind])
end
local function used_by_all(kind)
  if kind == 'runs' then return runs().all end
  return math.max(0, window(tenant_key)[kind])
end

-- {what each who waits may have, what the least served of them has had}; math.huge: nobody waits
local levels = {}
local function level(kind, most)
  if levels[kind] then return levels[kind] end
  local key, found = base .. ':waiting:' .. kind, {math.huge, math.huge}
  levels[kind] = found
  if (window(tenant_key).waiting or 0) <= now then return found end
  local till, cached, least = string.match(redis.call('GET', key .. ':level') or '', '^(%S+) (%S+) (%S+)$')
  if till and now < tonumber(till) then
    found[1], found[2] = tonumber(cached), tonumber(least)
  else
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
    local who = redis.call('ZRANGE', key, 0, -1)
    if #who > 0 then
      local theirs = 0
      for _, user in ipairs(who) do
        local had = used(kind, user)
        theirs, found[2] = theirs + had, math.min(found[2], had)
      end
      found[1] = (most - math.max(0, used_by_all(kind) - theirs)) / #who
      local cached = string.format('%.0f %.3f %.0f', now + 100 + #who, found[1], found[2])
      redis.call('SET', key .. ':level', cached, 'PX', 130000)
    end
  end
  return found
end
-- how much too much a user would have had with ``more``; 0 or less: she may
local function beyond(kind, user, more, most)
  local share = level(kind, most)
  if share[1] == math.huge then return 0 end
  local had = used(kind, user)
  if had <= share[2] then return 0 end
  return had + more - share[1]
end
local function refuse_waiting(kind, user, reason, ms)
  local key = base .. ':waiting:' .. kind
  local till = math.floor(now + ms + (kind == 'runs' and @RUNS_RETRY_MS@ or @GRACE_MS@))
  if redis.call('ZADD', key, till, user) == 1 then
    redis.call('DEL', key .. ':level')
    levels[kind] = nil
  end
  redis.call('PEXPIRE', key, 130000)
  local w = window(tenant_key)
  if till > (w.waiting or 0) then w.waiting, w.changed, w.fresh = till, true, true end
  return {0, reason, math.ceil(ms)}
end

local days = {}
local function day_of(number, user)
  local d = days[number]
  if not d then
    local key = base .. ':day:' .. number
    local v = redis.call('HMGET', key, '', 'held', 'restored', user)
    d = {key = key, total = tonumber(v[1]) or 0, held = tonumber(v[2]) or 0, restored = tonumber(v[3]) or 0,
         fresh = not v[1], of = {}}
    d.of[user] = tonumber(v[4]) or 0
    days[number] = d
  elseif not d.of[user] then
    d.of[user] = tonumber(redis.call('HGET', d.key, user)) or 0
  end
  return d
end
local function spend(d, user, cost, held)
  d.total, d.held, d.changed = d.total + cost, math.max(0, d.held + held), true
  d.of[user] = d.of[user] + cost
end

local function windowed(kind, user, amount, own, most)
  if amount <= 0 then return nil end
  if own > 0 then  -- what is larger than the whole limit waits for an empty window, else it would wait for ever
    local w = window(user_key(user))
    local over = w[kind] + math.min(amount, own) - own
    if over > 0 then return {0, 'user_' .. kind, wait(w, kind, over)} end
  end
  if most > 0 then
    local w = window(tenant_key)
    local over = w[kind] + math.min(amount, most) - most
    if over > 0 then return refuse_waiting(kind, user, kind, wait(w, kind, over)) end
    over = beyond(kind, user, math.min(amount, most), most)
    if over > 0 then
      local mine = window(user_key(user))
      return refuse_waiting(kind, user, kind .. '_share', wait(mine, kind, math.min(over, mine[kind])))
    end
  end
end

local function take(user, requests, tokens, cost, lease, ttl, forced)
  local refused, cheap = nil, 0
  if forced == 0 then
    refused = windowed('requests', user, requests, limit.user_requests, limit.requests)
      or windowed('tokens', user, tokens, limit.user_tokens, limit.tokens)
    if refused then return refused end
    if lease ~= '' and limit.runs > 0 then
      if runs().all >= limit.runs then return refuse_waiting('runs', user, 'runs', @RUNS_RETRY_MS@) end
      if beyond('runs', user, 1, limit.runs) > 0 then
        return refuse_waiting('runs', user, 'runs_share', @RUNS_RETRY_MS@)
      end
    end
  end
  local d
  if limit.hard >= 0 then
    d = day_of(today, user)
    local midnight = (today + 1) * @DAY_MS@ - now
    if limit.soft >= 0 and d.total >= limit.soft then cheap = 1 end
    if forced == 0 then
      local more = math.min(math.max(cost, 1), limit.hard)
      if d.total + more > limit.hard then
        if d.total - d.held + more <= limit.hard then return {0, 'budget_held', @HELD_RETRY_MS@} end
        return {0, 'budget', midnight}
      end
      if cheap == 1 then
        local users = redis.call('HLEN', d.key) - 3
        if users > 1 and d.of[user] >= limit.hard / users then return {0, 'budget_share', midnight} end
      end
    end
    if cost > 0 then spend(d, user, cost, cost) end
  end
  if requests > 0 or tokens > 0 then
    if windowed_by_all then add(window(tenant_key), current, requests, tokens) end
    if windowed_by_user then add(window(user_key(user)), current, requests, tokens) end
  end
  if lease ~= '' then
    local r = runs()
    redis.call('ZADD', base .. ':runs', now + ttl, user .. ' ' .. lease)
    redis.call('PEXPIRE', base .. ':runs', 120000)
    r.all = r.all + 1
    if r.of then r.of[user] = (r.of[user] or 0) + 1 end
  end
  return {1, current, today, cheap}
end

local function book(user, bucket, requests, tokens, day, cost, held)
  if requests ~= 0 or tokens ~= 0 then
    if windowed_by_all then add(window(tenant_key), bucket, requests, tokens) end
    if windowed_by_user then add(window(user_key(user)), bucket, requests, tokens) end
  end
  if cost ~= 0 or held ~= 0 then spend(day_of(day, user), user, cost, held) end
  return {1, bucket, day, 0}
end

local function lease(user, id, ttl)
  runs()
  if ttl > 0 then
    redis.call('ZADD', base .. ':runs', now + ttl, user .. ' ' .. id)
    redis.call('PEXPIRE', base .. ':runs', 120000)
  else
    redis.call('ZREM', base .. ':runs', user .. ' ' .. id)
  end
  leases = nil
  return {1, current, today, 0}
end

local function spent(day, cost)
  local d = day_of(day, '')
  if cost > d.restored then  -- on top of what others have booked since
    d.total, d.restored, d.changed = d.total + cost - d.restored, cost, true
  end
  return {1, current, today, 0}
end

local does, results = {take = take, book = book, lease = lease, spent = spent}, {}
for i, op in ipairs(call.ops) do results[i] = does[op[1]](unpack(op, 2)) end

for key, w in pairs(windows) do
  if w.changed then
    local fields = {'first', w.first, 'requests', w.requests, 'tokens', w.tokens}
    local function set(name, value)
      fields[#fields + 1], fields[#fields + 2] = name, value
    end
    for bucket, b in pairs(w.new) do
      if bucket == current then
        if b[1] ~= 0 then set(now_r, w.now_r + b[1]) end
        if b[2] ~= 0 then set(now_t, w.now_t + b[2]) end
      else
        if b[1] ~= 0 then redis.call('HINCRBY', key, bucket .. 'r', b[1]) end
        if b[2] ~= 0 then redis.call('HINCRBY', key, bucket .. 't', b[2]) end
      end
    end
    if w.waiting then set('waiting', w.waiting) end
    redis.call('HSET', key, unpack(fields))
    if w.fresh then redis.call('PEXPIRE', key, 130000) end
  end
end
for _, d in pairs(days) do
  if d.changed then
    local fields = {'', d.total, 'held', d.held, 'restored', d.restored}
    for user, cost in pairs(d.of) do
      if user ~= '' then fields[#fields + 1], fields[#fields + 2] = user, cost end
    end
    redis.call('HSET', d.key, unpack(fields))
    if d.fresh then redis.call('PEXPIRE', d.key, 2 * @DAY_MS@) end
  end
end

local answer = {now = now, day = today, results = results}
if call.beat then
  local key = base .. ':workers'
  redis.call('ZADD', key, now, call.worker)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now - @ALIVE_MS@)
  redis.call('PEXPIRE', key, 2 * @ALIVE_MS@)
  answer.workers = redis.call('ZCARD', key)
end
if not last and call.number > 1 then answer.lost = true end
local all = windows[tenant_key]
if all then answer.used = {math.max(0, all.requests), math.max(0, all.tokens)} end
if days[today] then answer.spent = days[today].total end
local json = cjson.encode(answer)
redis.call('SET', kept, number .. json, 'PX', 600000)
return json
"""
for _name in ("BUCKET_MS", "BUCKETS", "DAY_MS", "ALIVE_MS", "RUNS_RETRY_MS", "HELD_RETRY_MS", "GRACE_MS"):
    SCRIPT = SCRIPT.replace(f"@{_name}@", str(globals()[_name]))
