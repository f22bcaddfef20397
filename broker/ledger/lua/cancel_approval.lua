-- Whoever asked takes it back, or it can't be used. A = {id, reason, actor}. Answers the approval.
local approval = load(APPROVALS, A.id)
if not approval then return { 'unknown' } end
if next(APPROVAL_MOVES[approval.state]) then
  move_approval(approval, 'cancelled', A.reason)
end
return { approval.state, text_of(approval) }
