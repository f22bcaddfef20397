-- What became of an allowed call. A = {task_id, decision_id, report, step?, actor}. Effects that are
-- reported are added to the trail; none is taken away.
local task = load(TASKS, A.task_id)
if not task then return 'unknown' end
if redis.call('ZREM', DUE, 'd|' .. task.id .. '|' .. A.decision_id) == 0 then return 'closed' end
index(false, 'do', task.id, A.decision_id)
if A.step then take(task, A.step) end
emit('execution', task.id, nil, A.report, A.decision_id)
return 'ok'
