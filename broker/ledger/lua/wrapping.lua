-- How a credential in a wrapping token fares. A = {id, op, digest?, ends_at?, share?, how?, ours?,
-- claim_ms, actor}.
--   made    it was put in the token with this digest, which ends then; `share` is our part of it
--   opened  its agent is about to open it by us: once, and only if it could still be issued
--   lost    it isn't there: its time is up (`how` is nil), or somebody else has it, which is an alarm.
--           It is revoked, unless we have opened it ourselves meanwhile: `ours` says that this is us.
local grant = load(GRANTS, A.id)
if not grant then return { 'unknown' } end
if A.op == 'lost' then
  if grant.wrapping.opened_at and not A.ours then return { 'opened', text_of(grant) } end
  if A.how then
    emit('grant.intercepted', grant.task_id, grant.id, { agent = grant.agent, power = grant.power,
      capability = grant.capability, how = A.how })
  end
  if next(GRANT_MOVES[grant.state]) then
    begin_revoke(grant, A.how and 'intercepted' or 'wrapping_expired')
  end
  return { grant.state, text_of(grant) }
end
local task = load(TASKS, grant.task_id)
if grant.state ~= 'active' or grant.expires_at <= NOW then return { 'not_active', text_of(grant) } end
if not task or task.state ~= 'active' or task_due(task) <= NOW then return { 'task_not_active' } end
if A.op == 'made' then
  grant.wrapping = { digest = A.digest, ends_at = A.ends_at, share = A.share }
  save(GRANTS, grant)
  emit('grant.wrapped', grant.task_id, grant.id, { expires_at = A.ends_at })
  return { 'ok', text_of(grant) }
end
if grant.wrapping.opened_at then return { 'opened', text_of(grant) } end
local field = frozen_chain(task, 'capability:' .. grant.capability, 'backend:' .. grant.backend)
if field then return { 'frozen', field } end
grant.wrapping.opened_at, grant.wrapping.share = NOW, nil
save(GRANTS, grant)
emit('grant.unwrapped', grant.task_id, grant.id, { capability = grant.capability })
return { 'ok', text_of(grant) }
