-- Follows prelude.lua: what a human has to say yes to, and the windows in which a task has more.

-- An approval is found by the exact request (`aq`) as long as it answers repeats of it: while it waits,
-- once it is approved, and when it was denied until its time is up. `as` lists by state, `at` by task.
local function index_approval(approval, add)
  local state = approval.state
  if state == 'pending' or state == 'approved' or (state == 'denied' and not approval.over) then
    index(add, 'aq', approval.task_id, approval.digest, stamp(approval))
  end
  index(add, 'as', state, stamp(approval))
end

-- When it is to be looked at: at its end, or when the next group is to be asked.
local function approval_due(approval)
  local rung = approval.state == 'pending' and (approval.ladder or {})[#(approval.escalated or {}) + 1]
  local at = approval.expires_at
  if rung then at = math.min(at, approval.created_at + rung[1]) end
  due('a', approval.id, at)
end

local function about_approval(approval, more)
  local data = { approval = approval.id, action = approval.action, capability = approval.capability,
    power = approval.power, agent = approval.agent, requester = approval.requester,
    purpose = approval.purpose, intent = approval.intent, groups = approval.groups,
    channels = approval.channels, state = approval.state, expires_at = approval.expires_at,
    reason = approval.reason }
  for name, value in pairs(more or {}) do data[name] = value end
  -- cjson would make objects of empty lists.
  for _, name in ipairs({ 'groups', 'channels' }) do
    if data[name] and #data[name] == 0 then data[name] = nil end
  end
  return data
end

local function tell_approval(what, approval, more)
  emit('approval.' .. what, approval.task_id, approval.grant_id, about_approval(approval, more),
    approval.decision_id)
end

local function move_approval(approval, state, reason)
  if not APPROVAL_MOVES[approval.state][state] then
    error('illegal move of approval ' .. approval.id .. ': ' .. approval.state .. ' to ' .. state)
  end
  index_approval(approval, false)
  approval.state = state
  approval.version = approval.version + 1
  if reason then approval.reason = reason end
  index_approval(approval, true)
  if not next(APPROVAL_MOVES[state]) then
    approval.ended_at = NOW
    approval.request = nil -- what was asked for may be private, and nobody has to decide any more
    if state ~= 'denied' then redis.call('ZREM', DUE, 'a|' .. approval.id) end
  end
  save(APPROVALS, approval)
  tell_approval(state, approval)
end

local function open_approval(approval, task)
  approval.state = 'pending'
  approval.version = 1
  approval.created_at = NOW
  approval.expires_at = math.min(NOW + approval.wait_ms, task.expires_at)
  approval.wait_ms = nil
  approval.groups = {}
  for name in pairs(approval.needs) do
    if name ~= '' then approval.groups[#approval.groups + 1] = name end
  end
  table.sort(approval.groups)
  save(APPROVALS, approval)
  index_approval(approval, true)
  index(true, 'at', approval.task_id, stamp(approval))
  approval_due(approval)
  tell_approval('requested', approval, { needs = approval.needs })
end

-- Whether there is a yes to just this request. It is used once, in the script that does what was approved.
local function approved(id, digest)
  local approval = load(APPROVALS, id)
  local stands = approval and approval.state == 'approved' and approval.expires_at > NOW
    and approval.digest == digest
  return stands and approval or nil
end

local function use_approval(id, used_by)
  local approval = load(APPROVALS, id)
  approval.used_by = used_by
  move_approval(approval, 'used')
end

-- Its time is up, or the next group is asked.
local function tend_approval(approval, horizon)
  if approval.state == 'denied' and approval.expires_at <= horizon then
    index_approval(approval, false)
    approval.over = true
    index_approval(approval, true)
    save(APPROVALS, approval)
    redis.call('ZREM', DUE, 'a|' .. approval.id)
  elseif not next(APPROVAL_MOVES[approval.state]) and approval.state ~= 'denied' then
    redis.call('ZREM', DUE, 'a|' .. approval.id)
  elseif approval.expires_at <= horizon then
    move_approval(approval, 'expired')
  else
    local rung = approval.state == 'pending'
      and (approval.ladder or {})[#(approval.escalated or {}) + 1]
    if rung and approval.created_at + rung[1] <= horizon then
      approval.escalated = approval.escalated or {}
      approval.escalated[#approval.escalated + 1] = rung[2]
      approval.version = approval.version + 1
      save(APPROVALS, approval)
      tell_approval('escalated', approval, { groups = { rung[2] } })
    end
    approval_due(approval)
  end
end

-- Elevations: in the task's row, by id. One is live until its window ends, or its heartbeat is missed.
local function elevation_due(elevation)
  return end_of(elevation)
end

local function live_elevation(task, id)
  local elevation = (task.elevations or {})[id]
  if elevation and not elevation.ended_at and elevation_due(elevation) > NOW then return elevation end
  return nil
end

local function changed_chain(task)
  local root = root_row(task)
  next_version(chain_in(root))
  if root ~= task then save(TASKS, root) end
end

-- What is to be done once it has ended (its handles, rotation) is claimed until somebody has done it.
-- The caller saves the task.
local function end_elevation(task, id, reason)
  local elevation = task.elevations[id]
  elevation.ended_at = NOW
  elevation.reason = reason
  due('e', task.id .. '|' .. id, NOW)
  emit('elevation.ended', task.id, nil, { elevation = id, capability = elevation.capability,
    break_glass = elevation.break_glass, reason = reason }, elevation.decision_id)
end

-- What was issued under it is revoked.
local function revoke_elevated(task, id, reason, grants)
  for _, member in ipairs(members('gt|' .. task.id .. '|')) do
    local grant = load(GRANTS, id_of(member))
    if grant.elevation_id == id and grant.state ~= 'revoking' then
      begin_revoke(grant, 'elevation_' .. reason)
      grants[#grants + 1] = text_of(grant)
    end
  end
end

end_consents = function(task, reason)
  for _, member in ipairs(members('aq|' .. task.id .. '|')) do
    local approval = load(APPROVALS, id_of(member))
    if approval and next(APPROVAL_MOVES[approval.state]) then
      move_approval(approval, 'cancelled', reason)
    end
  end
  for id, elevation in pairs(task.elevations or {}) do
    if not elevation.ended_at then end_elevation(task, id, reason) end
  end
end
