-- A tool call that policy allows. A = {task_id, capability, decision_id, decision, seen, step,
-- report_ms, tokens, actor}; the last A.tokens keys are the tokens it is asked with. Its effects count
-- from now on, for everybody in the chain, and it stays open until its execution is reported.
local task = load(TASKS, A.task_id)
if not task or task.state ~= 'active' or task_due(task) <= NOW then return { 'task_not_active' } end
if token_ended(A.tokens) then return { 'token_ended' } end
local field = frozen_chain(task, 'capability:' .. A.capability)
if field then
  emit('call.refused', task.id, nil,
    { capability = A.capability, reason = 'frozen', selector = field }, A.decision_id)
  return { 'frozen', field }
end
if changed(task, A.seen) then return { 'changed' } end
take(task, A.step)
index(true, 'do', task.id, A.decision_id, A.actor)
due('d', task.id .. '|' .. A.decision_id, NOW + A.report_ms)
emit('decision', task.id, nil, A.decision, A.decision_id)
return { 'ok', version_of(root_row(task)) }
