-- Step 6. A = {id, lease, account?, revocability, lives_ms, dies_in_ms?, lifetime_ms, actor, claim_ms}. If the grant or its task was ended while
-- the backend was minting, the lease is recorded all the same, so that it can be revoked.
local grant = load(GRANTS, A.id)
if not grant then return { 'unknown' } end
if grant.state == 'active' and grant.lease == A.lease then return { 'active', text_of(grant) } end
grant.lease = A.lease
grant.account = A.account
grant.revocability = A.revocability
if A.lives_ms then grant.lives_until = NOW + A.lives_ms end
if A.dies_in_ms then grant.dies_at = NOW + A.dies_in_ms end
local task = load(TASKS, grant.task_id)
if grant.state == 'pending' and task and task.state == 'active' and task.expires_at > NOW then
  move_grant(grant, 'active')
  grant.expires_at = math.min(grant.expires_at, NOW + A.lifetime_ms)
  grant.due_at = nil
  save(GRANTS, grant)
  due('g', grant.id, grant.expires_at)
  emit('grant.activated', grant.task_id, grant.id,
    { lease = grant.lease, expires_at = grant.expires_at })
  return { 'active', text_of(grant) }
end
if grant.state == 'revoked' or grant.state == 'abandoned' then
  -- Its task's tokens were revoked while this lease was in the making; the record is closed and
  -- says so. The caller revokes the lease it holds before it answers.
  emit('grant.late', grant.task_id, grant.id, { lease = grant.lease })
  save(GRANTS, grant)
  return { grant.state, text_of(grant) }
end
begin_revoke(grant, 'task_ended_while_issuing')
emit('grant.late', grant.task_id, grant.id, { lease = grant.lease })
return { 'revoking', text_of(grant) }
