-- One operator's word on an approval. A = {id, says, reason, version, outcome?, have, actor}. Whether it
-- decides was counted on `version`; if another has voted meanwhile it is counted again. Exactly one of those who vote, of its time running out, and of its task's end decides.
local approval = load(APPROVALS, A.id)
if not approval then return { 'unknown' } end
if approval.state ~= 'pending' then return { 'decided', text_of(approval) } end
if approval.expires_at <= NOW then
  move_approval(approval, 'expired')
  return { 'decided', text_of(approval) }
end
if approval.version ~= A.version then return { 'changed', text_of(approval) } end
approval.votes = approval.votes or {}
approval.votes[#approval.votes + 1] = { by = A.actor, at = NOW, reason = A.reason, says = A.says }
approval.version = approval.version + 1
tell_approval('voted', approval, { vote = A.says, reason = A.reason, have = A.have, needs = approval.needs })
if not A.outcome then
  save(APPROVALS, approval)
  return { 'ok', text_of(approval) }
end
-- From now on its time is how long the yes is good for, and no longer than its task; the event says so.
if A.outcome == 'approved' then
  local task = load(TASKS, approval.task_id)
  approval.expires_at = math.min(NOW + approval.use_ms, task and task.expires_at or NOW)
end
move_approval(approval, A.outcome, A.reason)
if A.outcome == 'approved' then approval_due(approval) end
return { 'ok', text_of(approval) }
