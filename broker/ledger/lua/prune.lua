-- Forget what ended long ago: dead grants and closed tasks, events, and signals that are over.
-- A = {limit, audit_ms, drained?}.
local gone, later = 0, {}
local LATER_MS = 3600000
local function forget_signal(field)
  redis.call('HDEL', FROZEN, 'signal:' .. field)
  index(false, 'sg', field)
  index(false, 'so', field)
end
-- What somebody has still to do, or to look at, is not forgotten.
local function unfinished(task)
  for _, elevation in pairs(task.elevations or {}) do
    if elevation.review == 'open' or not elevation.settled_at then return true end
  end
  return false
end
local function forget_consents(task)
  for _, at in ipairs(members('at|' .. task.id .. '|')) do
    local approval = load(APPROVALS, id_of(at))
    if approval then index_approval(approval, false) end
    redis.call('ZREM', INDEX, at)
    redis.call('ZREM', DUE, 'a|' .. id_of(at))
    redis.call('HDEL', APPROVALS, id_of(at))
  end
  for id, elevation in pairs(task.elevations or {}) do
    index(false, 'rc', string.format('%013d', elevation.started_at), task.id, id)
  end
  for _, inside in ipairs(members('de|' .. task.id .. '|')) do redis.call('ZREM', INDEX, inside) end
end
for _, member in ipairs(redis.call('ZRANGEBYSCORE', PURGE, '-inf', NOW, 'LIMIT', 0, A.limit)) do
  local kind, id = string.match(member, '^(.)|(.+)$')
  if kind == 'g' then
    local grant = load(GRANTS, id)
    if grant and not next(GRANT_MOVES[grant.state]) then
      index_grant(grant, false)
      index(false, 'g', stamp(grant))
      index(false, 'gb', grant.orchestrator, stamp(grant))
      redis.call('HDEL', GRANTS, id)
      gone = gone + 1
    end
  else
    local task = load(TASKS, id)
    if task and unfinished(task) then
      later[#later + 1] = member
    elseif task and task.closed_at then
      index(false, 't', stamp(task))
      index(false, 'tb', task.orchestrator, stamp(task))
      if task.parent_id then index(false, 'tc', task.parent_id, stamp(task)) end
      for _, missing in ipairs(members('dm|' .. id .. '|')) do redis.call('ZREM', INDEX, missing) end
      forget_consents(task)
      redis.call('HDEL', TASKS, id)
      forget_signal('task:' .. id)
      gone = gone + 1
    end
  end
  redis.call('ZREM', PURGE, member)
end
for _, member in ipairs(later) do redis.call('ZADD', PURGE, NOW + LATER_MS, member) end
-- With a log, an event stays until it is in there, however old: A.drained has each shard's last one.
local oldest = string.format('%.0f', NOW - A.audit_ms)
if A.drained then
  local last = A.drained[tonumber(string.match(AUDIT, '{s(%x+)}'), 16) + 1]
  if last == '' then
    oldest = nil
  elseif tonumber(string.match(last, '^%d+')) < NOW - A.audit_ms then
    oldest = last
  end
end
if oldest then redis.call('XTRIM', AUDIT, 'MINID', '~', oldest) end
for _, member in ipairs(members('sg|')) do
  local field = string.sub(member, 4)
  local text = redis.call('HGET', FROZEN, 'signal:' .. field)
  local ends = text and cjson.decode(text).until_ms
  if not text or (ends and ends <= NOW) then forget_signal(field) end
end
return gone
