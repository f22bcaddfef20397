-- What became of an allowed call. A = {task_id, decision_id, report, step?, only, actor}; with `only` it
-- must have been asked for by the actor. Effects that are reported are added to the trail; none is taken
-- away. A late report counts as well.
local task = load(TASKS, A.task_id)
if not task then return 'unknown' end
local about = task.id .. '|' .. A.decision_id
local open = members('do|' .. about .. '|')[1] or members('dm|' .. about .. '|')[1]
if not open then return 'closed' end
if A.only and id_of(open) ~= A.actor then return 'unknown' end
redis.call('ZREM', INDEX, open)
redis.call('ZREM', DUE, 'd|' .. about)
if A.step then take(task, A.step) end
local inside = members('de|' .. about .. '|')[1]
if inside then
  A.report = cjson.decode(A.report)
  A.report.elevation = id_of(inside)
  redis.call('ZREM', INDEX, inside)
end
emit('execution', task.id, nil, A.report, A.decision_id)
return 'ok'
