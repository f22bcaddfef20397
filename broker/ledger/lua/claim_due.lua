-- Step 8: what is due at or before the horizon, claimed by pushing its due time ahead by claim_ms,
-- so that the claims of a dead replica come back by themselves. A = {horizon?, limit, claim_ms,
-- actor}. Answers how many tasks, those tasks, then the grants to revoke.
local horizon = A.horizon or NOW
local grants, tasks, taken = {}, {}, {}
local function take_grant(grant)
  if not taken[grant.id] then
    taken[grant.id] = true
    grants[#grants + 1] = text_of(grant)
  end
end
for _, member in ipairs(redis.call('ZRANGEBYSCORE', DUE, '-inf', horizon, 'LIMIT', 0, A.limit)) do
  local kind, id = string.match(member, '^(.)|(.+)$')
  if kind == 'g' then
    local grant = load(GRANTS, id)
    if not grant or not next(GRANT_MOVES[grant.state]) then
      redis.call('ZREM', DUE, member)
    elseif not taken[id] then
      begin_revoke(grant, grant.state == 'pending' and 'abandoned' or 'expired')
      take_grant(grant)
    end
  elseif kind == 'd' then
    -- An allowed call of which nobody said what became. It can still be said, as long as the task is kept.
    local task_id, decision_id = string.match(id, '^(.-)|(.+)$')
    redis.call('ZREM', DUE, member)
    for _, open in ipairs(members('do|' .. id .. '|')) do
      redis.call('ZREM', INDEX, open)
      index(load(TASKS, task_id) ~= nil, 'dm', string.sub(open, 4))
    end
    emit('execution.missing', task_id, nil, { decision = decision_id }, decision_id)
  else
    local task = load(TASKS, id)
    if not task or task.closed_at then
      redis.call('ZREM', DUE, member)
    elseif task.ended_at then
      -- Unless its parent's end, a moment ago, has put it on the list.
      if not taken[id] then
        due('t', id, NOW + A.claim_ms)
        tasks[#tasks + 1] = text_of(task)
      end
    elseif task_due(task) <= horizon then
      local silent = task.expires_at > horizon
      local state, reason = 'expired', 'deadline'
      if silent then reason = 'heartbeat_lost' end
      local ended, before = {}, #tasks
      end_task(task, state, reason, ended, tasks)
      for i = before + 1, #tasks do taken[cjson.decode(tasks[i]).id] = true end
      for _, row in ipairs(ended) do
        local grant = cjson.decode(row)
        take_grant(grant)
      end
    else
      due('t', id, task_due(task))
    end
  end
end
local out = { tostring(#tasks) }
for _, row in ipairs(tasks) do out[#out + 1] = row end
for _, row in ipairs(grants) do out[#out + 1] = row end
return out
