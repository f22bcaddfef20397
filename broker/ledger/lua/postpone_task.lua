-- An ended task isn't dead yet: look again later. A = {id, delay_ms, error}.
local task = load(TASKS, A.id)
if task and task.ended_at and not task.closed_at then
  due('t', A.id, NOW + A.delay_ms)
end
return 'ok'
