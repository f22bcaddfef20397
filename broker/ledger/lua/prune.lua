-- Forget what ended long ago: dead grants and closed tasks, nothing else. A = {limit, audit_ms}.
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
      redis.call('HDEL', TASKS, id)
      gone = gone + 1
    end
  end
  redis.call('ZREM', PURGE, member)
end
redis.call('XTRIM', AUDIT, 'MINID', '~', NOW - A.audit_ms)
return gone
