-- A = {id}. Answers the task, or that it is not active: silence has already ended it.
local task = load(TASKS, A.id)
if not task or task.state ~= 'active' or task_due(task) <= NOW then return { 'task_not_active' } end
if task.heartbeat_ms then
  task.heartbeat_due = NOW + task.heartbeat_ms
  save(TASKS, task)
  due('t', task.id, task_due(task))
end
return { 'ok', text_of(task) }
