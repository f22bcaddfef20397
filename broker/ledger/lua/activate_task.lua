-- A task that waited for approval is opened. A = {id, ttl_ms, approval, digest, decision, decision_id,
-- seen?, actor}. Its time runs from now on.
local task = load(TASKS, A.id)
if not task then return { 'unknown' } end
if task.state ~= 'pending_approval' then return { 'over', text_of(task) } end
if changed(task, A.seen) then return { 'changed' } end
local field = frozen_chain(task)
if field then return { 'frozen', field } end
local parent = task.parent_id and load(TASKS, task.parent_id)
if task.parent_id and (not parent or parent.state ~= 'active' or task_due(parent) <= NOW) then
  return { 'parent_ended' }
end
local approval = approved(A.approval, A.digest)
if not approval then return { 'not_approved' } end
use_approval(approval.id, task.id)
emit('decision', task.id, nil, A.decision, A.decision_id)
move_task(task, 'active')
task.expires_at = NOW + A.ttl_ms
if parent then task.expires_at = math.min(task.expires_at, parent.expires_at) end
if task.heartbeat_ms then task.heartbeat_due = NOW + task.heartbeat_ms end
save(TASKS, task)
due('t', task.id, task_due(task))
emit('task.activated', task.id, nil, { approval = A.approval, expires_at = task.expires_at },
  A.decision_id)
return { 'ok', text_of(task) }
