-- Forget what ended long ago: dead grants and closed tasks, and signals that are over. A = {limit, audit_ms, drained?}.
local gone = 0
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
    if task and task.closed_at then
      index(false, 't', stamp(task))
      index(false, 'tb', task.orchestrator, stamp(task))
      if task.parent_id then index(false, 'tc', task.parent_id, stamp(task)) end
      for _, missing in ipairs(members('dm|' .. id .. '|')) do redis.call('ZREM', INDEX, missing) end
      redis.call('HDEL', TASKS, id)
      gone = gone + 1
    end
  end
  redis.call('ZREM', PURGE, member)
end
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
if oldest then if redis.call('HEXISTS', FROZEN, 'signal#') == 1 then
  local fields = redis.call('HGETALL', FROZEN)
  for i = 1, #fields, 2 do
    local ends = string.match(fields[i], '^signal:') and cjson.decode(fields[i + 1]).until_ms
    if ends and ends <= NOW then redis.call('HDEL', FROZEN, fields[i]) end
  end
end
redis.call('XTRIM', AUDIT, 'MINID', '~', oldest) end
return gone
