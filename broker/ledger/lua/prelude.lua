-- Shared by every script. KEYS are the same in all: one shard's tables, in the order of keys.py.
-- Keys of a script's own come after them. ARGV[1] is one JSON object. Time is this server's. The
-- tables of moves are prepended by scripts.py from the Python tables, so that there is one list of
-- legal moves. `budgets.lua` and `consent.lua` follow.
local TASKS, GRANTS, INDEX, DUE, PURGE, FROZEN, AUDIT, APPROVALS = unpack(KEYS, 1, 8)
local A = cjson.decode(ARGV[1])
local clock = redis.call('TIME')
local NOW = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local DEAD = { revoked = true, failed = true, abandoned = true }
local UNSETTLED = { pending = true, revoking = true, stuck = true }
-- What this script has seen: of tasks the root, of grants the decision. Events name both.
local ROOTS, DECISIONS = {}, {}

local function remember(row)
  ROOTS[row.id] = row.root_id
  DECISIONS[row.id] = row.decision_id
end

local function load(table_key, id)
  local text = redis.call('HGET', table_key, id)
  if not text then return nil end
  local row = cjson.decode(text)
  row.id = id
  remember(row)
  return row
end

local function save(table_key, row)
  local id = row.id
  remember(row)
  row.id = nil
  redis.call('HSET', table_key, id, cjson.encode(row))
  row.id = id
end

local function text_of(row)
  return cjson.encode(row)
end

local function root_of(task_id)
  if not ROOTS[task_id] then
    local text = redis.call('HGET', TASKS, task_id)
    ROOTS[task_id] = text and string.match(text, '"root_id":"([^"]+)"') or task_id
  end
  return ROOTS[task_id]
end

-- The event of a step goes into the stream in the same script as the step's state change. `data` is
-- a table, or JSON as it is to be written: cjson would make objects of its empty lists.
local function emit(kind, task_id, grant_id, data, decision)
  redis.call('XADD', AUDIT, '*', 'type', kind, 'task', task_id or '', 'grant', grant_id or '',
    'principal', A.actor or '', 'data', type(data) == 'string' and data or cjson.encode(data),
    'chain', task_id and task_id ~= '' and root_of(task_id) or '',
    'decision', decision or (grant_id and DECISIONS[grant_id]) or '', 'trace', A.trace or '')
end

local function stamp(row)
  return string.format('%013d|%s', row.created_at, row.id)
end

local function index(add, ...)
  local member = table.concat({ ... }, '|')
  if add then redis.call('ZADD', INDEX, 0, member) else redis.call('ZREM', INDEX, member) end
end

local function members(prefix)
  return redis.call('ZRANGEBYLEX', INDEX, '[' .. prefix, '(' .. prefix .. '\255')
end

local function count(prefix)
  return redis.call('ZLEXCOUNT', INDEX, '[' .. prefix, '(' .. prefix .. '\255')
end

local function id_of(member)
  return string.match(member, '([^|]+)$')
end

local function due(kind, id, at)
  redis.call('ZADD', DUE, at, kind .. '|' .. id)
end

-- How a grant stands in the indexes, by its state. Called with add=false before a change of state
-- and with add=true after it.
local function index_grant(grant, add)
  local at = stamp(grant)
  if DEAD[grant.state] then
    index(add, 'gd', grant.task_id, grant.capability, at)
    return
  end
  index(add, 'gt', grant.task_id, grant.capability, at)
  index(add, 'gc', grant.backend, grant.capability, at)
  if UNSETTLED[grant.state] then index(add, 'gs', grant.state, grant.backend, at) end
  -- The backlog: what used up its budget, until it is dead, also while it is being retried.
  if grant.exhausted then index(add, 'gx', grant.backend, grant.capability, at) end
  -- What a backend as a whole is behind with: each that was tried in vain once, until it is dead.
  if (grant.attempts or 0) > 0 then index(add, 'gr', grant.backend, at) end
end

local function move_grant(grant, state)
  if not GRANT_MOVES[grant.state][state] then
    error('illegal move of grant ' .. grant.id .. ': ' .. grant.state .. ' to ' .. state)
  end
  index_grant(grant, false)
  grant.state = state
  index_grant(grant, true)
end

local function move_task(task, state)
  if not TASK_MOVES[task.state][state] then
    error('illegal move of task ' .. task.id .. ': ' .. task.state .. ' to ' .. state)
  end
  task.state = state
end

-- A ledger that was set back is in quarantine, since when and until when: nothing is issued from it,
-- and no deadline counts that it may only believe. What it remembers of beats is old, so silence
-- counts from the end of the quarantine.
local QUARANTINE, RELEASED = 'quarantine#', 'quarantine#until'
local function quarantined()
  return redis.call('HEXISTS', FROZEN, QUARANTINE) == 1
end

-- When a task or an elevation ends by itself: at its end, or when its beats have stopped.
local function end_of(row)
  local beat = row.heartbeat_due or 0
  if beat == 0 then return row.expires_at end
  local marks = redis.call('HMGET', FROZEN, QUARANTINE, RELEASED)
  if marks[1] then return row.expires_at end
  if marks[2] then beat = math.max(beat, tonumber(marks[2]) + row.heartbeat_ms) end
  return math.min(row.expires_at, beat)
end

local function task_due(task)
  return end_of(task)
end

-- Step 9 begins: from here on the credential counts as unwanted, whoever finishes the work. The
-- caller holds the claim until claim_ms from now.
local function begin_revoke(grant, reason)
  if grant.state ~= 'revoking' then
    local from = grant.state
    move_grant(grant, 'revoking')
    if not grant.revoke_at or grant.revoke_at == 0 then
      grant.revoke_at = NOW
      grant.reason = reason
    end
    emit('grant.revoking', grant.task_id, grant.id, { from = from, reason = grant.reason })
  end
  grant.due_at = NOW + A.claim_ms
  save(GRANTS, grant)
  due('g', grant.id, grant.due_at)
end

-- Nothing more is done about a grant.
local function end_grant(grant, state, evidence)
  move_grant(grant, state)
  grant.ended_at = NOW
  grant.evidence = evidence
  grant.due_at = nil
  save(GRANTS, grant)
  redis.call('ZREM', DUE, 'g|' .. grant.id)
  redis.call('ZADD', PURGE, NOW + A.retain_ms, 'g|' .. grant.id)
end

-- Step 10: the backend was asked and knows the credential no more.
local function confirm(grant, evidence)
  grant.error = nil
  end_grant(grant, 'revoked', evidence)
  emit('grant.revoked', grant.task_id, grant.id,
    { evidence = evidence, reason = grant.reason, time_to_dead_ms = NOW - grant.revoke_at,
      attempts = grant.attempts or 0 })
end

-- Whether a grant was rotated, or is being: one that has come to nothing doesn't count.
local function has_successor(grant)
  local after = grant.replaced_by and load(GRANTS, grant.replaced_by)
  return after and (after.state == 'pending' or after.state == 'active')
end

-- An ended task is closed once nothing lives under it; wake whoever does that.
local function wake_if_ended(task_id)
  local task = load(TASKS, task_id)
  if task and task.ended_at and not task.closed_at and count('gt|' .. task_id .. '|') == 0 then
    due('t', task_id, NOW)
  end
end

-- What ends with a task besides its grants: `consent.lua` says how.
local end_consents
local charge, settle -- see budgets.lua

-- Ends a task and everything below it in one go: no mint can slip in between parent and child.
-- Appends the grants to revoke to `grants` and the ended tasks to `tasks`.
local function end_task(task, state, reason, grants, tasks)
  if task.ended_at then return end
  move_task(task, state)
  task.ended_at = NOW
  task.reason = reason
  if A.summary then task.summary = A.summary end
  end_consents(task, 'task_' .. state)
  save(TASKS, task)
  due('t', task.id, NOW + A.claim_ms)
  emit('task.ended', task.id, nil, { state = state, reason = reason, summary = A.summary })
  tasks[#tasks + 1] = text_of(task)
  for _, member in ipairs(members('gt|' .. task.id .. '|')) do
    local grant = load(GRANTS, id_of(member))
    begin_revoke(grant, 'task_' .. state)
    grants[#grants + 1] = text_of(grant)
  end
  for _, member in ipairs(members('tc|' .. task.id .. '|')) do
    local child = load(TASKS, id_of(member))
    if child then
      local child_state = child.state == 'pending_approval' and 'cancelled' or state
      if state == 'completed' or state == 'failed' then child_state = 'cancelled' end
      end_task(child, child_state, 'parent_' .. state, grants, tasks)
    end
  end
  if task.sources then settle(task.id) end
end

-- Whether one of the tokens that this is asked for with has ended; they are the last n keys.
local function token_ended(n)
  for i = #KEYS - n + 1, #KEYS do
    if redis.call('EXISTS', KEYS[i]) == 0 then return true end
  end
  return false
end

-- What an operator froze, or a quarantine, if it touches this request; the field is the selector.
local function frozen(...)
  for _, field in ipairs({ QUARANTINE, 'all', ... }) do
    if redis.call('HEXISTS', FROZEN, field) == 1 then return field end
  end
  return nil
end

-- Marks of principals and owners: see register.py. What one says follows the version it was set at,
-- and a late writer doesn't undo what a later version said.
local function mark(marks, version)
  for _, pair in ipairs(marks) do
    local held = redis.call('HGET', FROZEN, pair[1])
    if not held or tonumber(string.match(held, '^%d+')) <= version then
      if pair[2] then
        redis.call('HSET', FROZEN, pair[1], string.format('%d|%s', version, pair[2]))
      elseif held then
        redis.call('HDEL', FROZEN, pair[1])
      end
    end
  end
end

-- The mark that stops one of `who`, each { name, owner?, at? }: suspended, or without a living owner.
-- `at` is when a token was made: one from before its principal was stopped stays dead afterwards.
local function stopped(who)
  if redis.call('HLEN', FROZEN) == 0 then return nil end
  local fields = {}
  for _, one in ipairs(who) do
    fields[#fields + 1] = 'suspended:' .. one.name
    fields[#fields + 1] = 'owned:' .. one.name
    fields[#fields + 1] = 'since:' .. one.name
  end
  local held = redis.call('HMGET', FROZEN, unpack(fields))
  for i, one in ipairs(who) do
    if held[3 * i - 2] then return 'suspended:' .. one.name end
    local owner = held[3 * i - 1] and string.match(held[3 * i - 1], '|(.*)$') or one.owner
    if owner and redis.call('HEXISTS', FROZEN, 'left:' .. owner) == 1 then return 'left:' .. owner end
    local since = held[3 * i] and tonumber(string.match(held[3 * i], '|(%d+)$'))
    if since and one.at and one.at <= since then return 'since:' .. one.name end
  end
  return nil
end

-- Everybody a task hangs from: its agent, those above it, and who opened the chain.
local function people_of(task, who)
  who[#who + 1] = { name = task.agent, owner = task.owner }
  if task.orchestrator then who[#who + 1] = { name = task.orchestrator } end
  for _, name in ipairs(task.actors or {}) do
    if name ~= task.agent then who[#who + 1] = { name = name } end
  end
  return who
end

-- What stops a task that isn't stored yet or is: freezing reaches as far down a chain as revoking.
local function frozen_chain(task, ...)
  local field = frozen(...) or stopped(people_of(task, {}))
  while task and not field do
    field = frozen('task:' .. task.id, 'agent:' .. task.agent, 'owner:' .. task.owner)
    task = task.parent_id and load(TASKS, task.parent_id)
  end
  return field
end

-- Trails: what a task has done so far, and in the root's row its whole chain; see trail.py.
local function union(list, more)
  local seen, out = {}, {}
  for _, words in ipairs({ list or {}, more or {} }) do
    for _, word in ipairs(words) do
      if not seen[word] then
        seen[word] = true
        out[#out + 1] = word
      end
    end
  end
  return out
end

local function extend(trail, step)
  trail = trail or {}
  local before = { #(trail.effects or {}), #(trail.data_classes or {}), #(trail.ways or {}), trail.rank or 0 }
  trail.effects = union(trail.effects, step.effects)
  trail.data_classes = union(trail.data_classes, step.data_classes)
  trail.ways = union(trail.ways, step.ways)
  trail.grants = (trail.grants or 0) + (step.grants or 0)
  trail.calls = (trail.calls or 0) + (step.calls or 0)
  -- As text: cjson writes numbers with 14 digits, and a sum has up to 16.
  trail.amount = string.format('%.0f', (tonumber(trail.amount) or 0) + (step.amount or 0))
  trail.rank = math.max(trail.rank or 0, step.rank or 0)
  return trail, #trail.effects > before[1] or #trail.data_classes > before[2] or #trail.ways > before[3]
    or trail.rank > before[4]
end

local function counts_of(trail)
  return string.format('%d.%d.%s', trail.grants or 0, trail.calls or 0, trail.amount or '0')
end

local function chain_in(root)
  root.chain = root.chain or { version = 0, tasks = 1 }
  return root.chain
end

local function root_row(task)
  return task.parent_id and load(TASKS, task.root_id) or task
end

-- Never a version that was there before, also not in a ledger that was restored from a backup.
local function next_version(chain)
  chain.version = math.max(chain.version + 1, NOW)
end

-- A step of a task's, seen by the next decision of anybody in the chain.
local function take(task, step)
  charge(task, step)
  local root = root_row(task)
  local chain = chain_in(root)
  local more, more_in_all
  task.trail, more = extend(task.trail, step)
  chain.trail, more_in_all = extend(chain.trail, step)
  if more or more_in_all then next_version(chain) end
  save(TASKS, task)
  if root ~= task then save(TASKS, root) end
end

-- What decisions about a chain are made on: its trail, and what was reported about anybody. A write
-- that was decided on something else is refused, so two that race don't each miss the other. `seen`
-- names its growth, or with the counts its whole version: see `Survey` in trail.py.
local function growth_of(root)
  local chain = root and root.chain
  return string.format('%d.%s', chain and chain.version or 0, redis.call('HGET', FROZEN, 'signal#') or '0')
end

local function changed(task, seen)
  local root = task and root_row(task)
  local growth, chain = growth_of(root), root and root.chain
  return seen and seen ~= growth and seen ~= table.concat(
    { growth, counts_of(chain and chain.trail or {}), counts_of(task and task.trail or {}) }, '.')
end

-- The worst that was reported of a task, of those above it, and of their agents and owners. What
-- isn't stored yet has the last two of these: `names` are fields besides.
local VERDICTS = { clean = 0, suspicious = 1, compromised = 2 }
local function signals_on(task, names)
  local out = { risk = 0, verdict = 'clean', sources = {} }
  if redis.call('HEXISTS', FROZEN, 'signal#') == 0 then return out end
  local fields, seen = {}, {}
  local function want(field)
    if not seen[field] then
      seen[field] = true
      fields[#fields + 1] = 'signal:' .. field
    end
  end
  for _, name in ipairs(names or {}) do want(name) end
  while task do
    want('task:' .. task.id)
    want('agent:' .. task.agent)
    want('owner:' .. task.owner)
    if task.orchestrator then want('agent:' .. task.orchestrator) end
    task = task.parent_id and load(TASKS, task.parent_id)
  end
  for i, text in ipairs(redis.call('HMGET', FROZEN, unpack(fields))) do
    local signal = text and cjson.decode(text)
    if signal and (not signal.until_ms or signal.until_ms > NOW) then
      out.risk = math.max(out.risk, signal.risk)
      if VERDICTS[signal.verdict] > VERDICTS[out.verdict] then out.verdict = signal.verdict end
      if signal.risk > 0 or signal.verdict ~= 'clean' then
        out.sources[#out.sources + 1] = string.sub(fields[i], 8)
      end
    end
  end
  return out
end
