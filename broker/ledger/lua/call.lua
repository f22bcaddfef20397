-- A tool call that policy allows. A = {task_id, capability, decision_id, decision, seen, step,
-- report_ms, tokens, approval?, approved?, elevation?, actor}; the last A.tokens keys are the tokens it is
-- asked with. Its effects count from now on, for everybody in the chain, and it stays open until its
-- execution is reported.
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
local short = short_of(task, A.step)
if short then return { 'budget', short } end
if A.elevation and not live_elevation(task, A.elevation) then return { 'changed' } end
if A.approval then
  if not approved(A.approval, A.approved) then return { 'changed' } end
  use_approval(A.approval, A.decision_id)
end
take(task, A.step)
index(true, 'do', task.id, A.decision_id, A.actor)
if A.elevation then index(true, 'de', task.id, A.decision_id, A.elevation) end
due('d', task.id .. '|' .. A.decision_id, NOW + A.report_ms)
emit('decision', task.id, nil, A.decision, A.decision_id)
local root = root_row(task)
return { 'ok', growth_of(root), counts_of(root.chain.trail), counts_of(task.trail) }
