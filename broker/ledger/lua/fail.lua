-- The backend said no: nothing was issued. A = {id, error, retain_ms, actor}.
local grant = load(GRANTS, A.id)
if not grant then return { 'unknown' } end
if grant.state == 'failed' then return { 'failed', text_of(grant) } end
if grant.state == 'revoking' then
  -- Ended while the backend was asked; since it said no, there is nothing to revoke.
  confirm(grant, 'never issued: ' .. A.error)
  wake_if_ended(grant.task_id)
  return { 'revoked', text_of(grant) }
end
if grant.state ~= 'pending' then return { grant.state, text_of(grant) } end
grant.error = A.error
end_grant(grant, 'failed')
emit('grant.failed', grant.task_id, grant.id, { error = A.error })
wake_if_ended(grant.task_id)
return { 'failed', text_of(grant) }
