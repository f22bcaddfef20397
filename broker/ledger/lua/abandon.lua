-- Somebody states that no more is done to end a grant, although nobody confirms that it is dead.
-- A = {id, statement, retain_ms, claim_ms, actor}.
local grant = load(GRANTS, A.id)
if not grant then return { 'unknown' } end
if not GRANT_MOVES[grant.state]['abandoned'] then return { grant.state, text_of(grant) } end
end_grant(grant, 'abandoned', A.statement)
emit('grant.abandoned', grant.task_id, grant.id,
  { agent = grant.agent, capability = grant.capability, backend = grant.backend,
    statement = A.statement, reason = grant.reason, error = grant.error,
    attempts = grant.attempts or 0 })
wake_if_ended(grant.task_id)
return { grant.state, text_of(grant) }
