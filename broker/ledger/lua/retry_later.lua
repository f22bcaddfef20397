-- Revoking failed, or isn't confirmed. A = {id, error, delay_ms, attempts, counts, actor}. When the
-- budget is used up the grant is stuck: alarmed, and still retried.
local grant = load(GRANTS, A.id)
if not grant then return { 'unknown' } end
if grant.state ~= 'revoking' then return { grant.state, text_of(grant) } end
grant.error = A.error
if A.counts then grant.attempts = (grant.attempts or 0) + 1 end
grant.due_at = NOW + A.delay_ms
if (grant.attempts or 0) >= A.attempts then
  grant.exhausted = true
  move_grant(grant, 'stuck')
  emit('grant.stuck', grant.task_id, grant.id, { agent = grant.agent, capability = grant.capability,
    backend = grant.backend, attempts = grant.attempts, error = A.error })
end
index_grant(grant, true)
save(GRANTS, grant)
due('g', grant.id, grant.due_at)
return { grant.state, text_of(grant) }
