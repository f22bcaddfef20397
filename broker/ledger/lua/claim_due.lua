-- Step 8: what is due at or before the horizon, claimed by pushing its due time ahead by claim_ms,
-- so that the claims of a dead replica come back by themselves. A = {horizon?, limit, claim_ms,
-- actor}. Answers how many tasks, how many elevations, those tasks, those elevations (TASK|ELEVATION)
-- that ended and left something to do, then the grants to revoke.
--
-- In quarantine only what somebody has ended is worked on: a deadline may have been put off since the
-- ledger's memory ends, and what is revoked by a handle takes along what it doesn't know of.
local horizon = A.horizon or NOW
local held, later = quarantined(), math.max(A.horizon or 0, NOW) + A.claim_ms
local grants, tasks, elevations, taken = {}, {}, {}, {}
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
    elseif held and not (grant.lease and (grant.revoke_at or 0) > 0) then
      due('g', id, later)
    elseif not taken[id] then
      begin_revoke(grant, grant.state == 'pending' and 'abandoned' or 'expired')
      take_grant(grant)
    end
  elseif kind == 'a' then
    local approval = load(APPROVALS, id)
    if approval then tend_approval(approval, horizon) else redis.call('ZREM', DUE, member) end
  elseif kind == 'e' then
    local task_id, elevation_id = string.match(id, '^(.-)|(.+)$')
    local task = load(TASKS, task_id)
    local elevation = task and (task.elevations or {})[elevation_id]
    if not elevation or elevation.settled_at then
      redis.call('ZREM', DUE, member)
    elseif held and not elevation.ended_at then
      due('e', id, later)
    elseif elevation.ended_at or elevation_due(elevation) <= horizon then
      local over = {}
      if not elevation.ended_at then
        local reason = elevation.expires_at > horizon and 'heartbeat_lost' or 'window'
        end_elevation(task, elevation_id, reason)
        changed_chain(task)
        save(TASKS, task)
        revoke_elevated(task, elevation_id, reason, over)
      end
      due('e', id, NOW + A.claim_ms)
      elevations[#elevations + 1] = id
      for _, row in ipairs(over) do take_grant(cjson.decode(row)) end
    else
      due('e', id, elevation_due(elevation))
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
    elseif held then
      due('t', id, later)
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
local out = { tostring(#tasks), tostring(#elevations) }
for _, row in ipairs(tasks) do out[#out + 1] = row end
for _, row in ipairs(elevations) do out[#out + 1] = row end
for _, row in ipairs(grants) do out[#out + 1] = row end
return out
