-- What follows the end of an elevation. A = {task_id, id, rotation?, error?, delay_ms?, settled, actor}:
-- what became of a rotation (`path` to `done` or `failed`), when to look again, or that nothing is left.
local task = load(TASKS, A.task_id)
local elevation = task and (task.elevations or {})[A.id]
local place = A.task_id .. '|' .. A.id
if not elevation then
  redis.call('ZREM', DUE, 'e|' .. place)
  return 'unknown'
end
for path, state in pairs(A.rotation or {}) do
  local was = (elevation.rotation or {})[path]
  -- Two may have tried: what one has rotated, the other's failure doesn't undo.
  if was ~= state and was ~= 'done' then
    elevation.rotation = elevation.rotation or {}
    elevation.rotation[path] = state
    emit('rotation.' .. state, task.id, nil,
      { elevation = A.id, capability = elevation.capability, path = path, error = A.error },
      elevation.decision_id)
  end
end
if A.settled then
  elevation.settled_at = NOW
  redis.call('ZREM', DUE, 'e|' .. place)
else
  due('e', place, NOW + A.delay_ms)
end
save(TASKS, task)
return 'ok'
