-- One operator's word on an approval. A = {id, vote, says, version, outcome?, have, use_ms, retain_ms,
-- claim_ms, actor}. Whether it decides was counted on `version`; if another has voted meanwhile it is
-- counted again. Exactly one of those who vote, of its time running out, and of its task's end decides.
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
-- From now on its time is how long the yes is good for; the event says so too.
if A.outcome == 'approved' then approval.expires_at = NOW + approval.use_ms end
move_approval(approval, A.outcome, A.reason)
local task = load(TASKS, approval.task_id)
if A.outcome == 'approved' then
  approval_due(approval)
  -- A task that waits for it is opened by whoever says yes; or by a sweep, if that one can't.
  if task.state == 'pending_approval' then
    task.expires_at = approval.expires_at
    save(TASKS, task)
    due('t', task.id, task_due(task))
    index(true, 'ao', stamp(approval))
  end
elseif task.state == 'pending_approval' then
  end_task(task, 'denied', 'approval_denied', {}, {})
end
return { 'ok', text_of(approval) }
