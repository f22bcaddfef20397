-- Whoever asked takes it back, or it can't be used. A = {id, reason, claim_ms, actor}. Answers the approval.
local approval = load(APPROVALS, A.id)
if not approval then return { 'unknown' } end
if next(APPROVAL_MOVES[approval.state]) then
  move_approval(approval, 'cancelled', A.reason)
  local task = load(TASKS, approval.task_id)
  if task and task.state == 'pending_approval' then
    end_task(task, 'cancelled', A.reason, {}, {})
  end
end
return { approval.state, text_of(approval) }
