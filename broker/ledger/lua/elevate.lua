-- A task gets a capability for a window. A = {task_id, id, elevation, ttl_ms, approval?, digest?, decision,
-- seen, tokens, actor}; the last A.tokens keys are the tokens it is asked with.
local task = load(TASKS, A.task_id)
if not task or task.state ~= 'active' or task_due(task) <= NOW then return { 'task_not_active' } end
if changed(task, A.seen) then return { 'changed' } end
if A.approval and not approved(A.approval, A.digest) then return { 'changed' } end
local elevation = A.elevation
for id, held in pairs(task.elevations or {}) do
  if held.capability == elevation.capability and live_elevation(task, id) then
    return { 'elevated', id }
  end
end
emit('decision', task.id, nil, A.decision, elevation.decision_id)
local refusal = token_ended(A.tokens) and { 'token_ended' }
local field = frozen_chain(task, 'capability:' .. elevation.capability)
if field then refusal = { 'frozen', field } end
if refusal then
  emit('elevation.refused', task.id, nil, { capability = elevation.capability, reason = refusal[1],
    selector = field }, elevation.decision_id)
  return refusal
end
if A.approval then use_approval(A.approval, A.id) end
elevation.started_at = NOW
elevation.expires_at = math.min(NOW + A.ttl_ms, task.expires_at)
if elevation.heartbeat_ms then elevation.heartbeat_due = NOW + elevation.heartbeat_ms end
task.elevations = task.elevations or {}
task.elevations[A.id] = elevation
changed_chain(task)
save(TASKS, task)
local place = task.id .. '|' .. A.id
due('e', place, elevation_due(elevation))
local about = { elevation = A.id, capability = elevation.capability, agent = task.agent,
  by = elevation.by, intent = elevation.intent, purpose = task.purpose, approval = A.approval,
  break_glass = elevation.break_glass, expires_at = elevation.expires_at }
emit('elevation.started', task.id, nil, about, elevation.decision_id)
if elevation.break_glass then
  index(true, 'ro', string.format('%013d', NOW), task.id, A.id)
  emit('glass.broken', task.id, nil, about, elevation.decision_id)
  emit('review.opened', task.id, nil, about, elevation.decision_id)
end
return { 'ok', text_of(task) }
