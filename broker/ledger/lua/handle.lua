-- A task's handles: what can kill its credentials at a backend even when a lease was never learnt.
-- A = {id, op, handle, backend?, value?, elevation?, grace_ms, actor}.
--   expect   before the backend is asked for one: from now on it may exist
--   record   the backend answered with its value (a Vault accessor)
--   retire   no grant may be minted with it any more; refused while live ones hang from it
--   drop     the backend confirmed that it is gone
local task = load(TASKS, A.id)
if not task then return { 'unknown' } end
task.handles = task.handles or {}
-- What is made for an elevation ends with it: nothing more is made after that.
local function elevation_ended(id)
  return id and not live_elevation(task, id)
end
local known = task.handles[A.handle]
if A.op == 'expect' then
  if task.state ~= 'active' or task.expires_at <= NOW then return { 'task_not_active' } end
  if elevation_ended(A.elevation) then return { 'elevation_ended' } end
  task.handles[A.handle] = { backend = A.backend, value = '', at = NOW, elevation = A.elevation }
elseif A.op == 'drop' then
  -- Somebody may be waiting for the backend's answer right now: too early to say it isn't there.
  if known and known.value == '' and not A.refused and NOW - known.at < A.grace_ms then
    return { 'too_early' }
  end
  task.handles[A.handle] = nil
elseif not known then
  return { 'unknown' }
elseif A.op == 'record' then
  known.value = A.value
elseif A.op == 'retire' then
  for _, member in ipairs(members('gt|' .. task.id .. '|')) do
    local grant = load(GRANTS, id_of(member))
    if grant.handle == A.handle and (grant.state == 'pending' or grant.lease) then
      return { 'in_use' }
    end
  end
  known.retired = true
end
save(TASKS, task)
if A.op ~= 'expect' then
  emit('handle.' .. A.op, task.id, nil, { handle = A.handle, backend = A.backend })
end
-- A handle recorded after its task's end is dead weight to be revoked at once.
if A.op == 'record' and task.ended_at then due('t', task.id, NOW) end
if A.op == 'record' and elevation_ended(known.elevation) then return { 'elevation_ended' } end
return { task.state, text_of(task) }
