-- Somebody wants the next attempt now: a grant that waits for it is due. A = {id, reason?, actor}.
local grant = load(GRANTS, A.id)
if not grant then return { 'unknown' } end
if grant.state ~= 'revoking' and grant.state ~= 'stuck' then return { grant.state, text_of(grant) } end
grant.due_at = NOW
save(GRANTS, grant)
due('g', grant.id, NOW)
emit('grant.retried', grant.task_id, grant.id,
  { reason = A.reason, attempts = grant.attempts or 0, error = grant.error })
return { grant.state, text_of(grant) }
