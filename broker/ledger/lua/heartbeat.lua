-- The task is alive, and with it its elevations. A = {id}. Answers the task, or that it is not active: silence has already ended it.
local task = load(TASKS, A.id)
if not task or task.state ~= 'active' or task_due(task) <= NOW then return { 'task_not_active' } end
local beats = task.heartbeat_ms
if beats then
  task.heartbeat_due = NOW + task.heartbeat_ms
  due('t', task.id, task_due(task))
end
for id, elevation in pairs(task.elevations or {}) do
  if elevation.heartbeat_ms and live_elevation(task, id) then
    elevation.heartbeat_due = NOW + elevation.heartbeat_ms
    due('e', task.id .. '|' .. id, elevation_due(elevation))
    beats = true
  end
end
if beats then save(TASKS, task) end
return { 'ok', text_of(task) }
