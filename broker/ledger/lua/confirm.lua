-- Step 10. A = {id, evidence, retain_ms, claim_ms, actor}.
local grant = load(GRANTS, A.id)
if not grant then return { 'unknown' } end
if DEAD[grant.state] then return { grant.state, text_of(grant) } end
-- Who confirms may have lost its claim to another that gave up on the grant meanwhile.
if grant.state == 'stuck' then begin_revoke(grant, grant.reason) end
confirm(grant, A.evidence)
wake_if_ended(grant.task_id)
return { grant.state, text_of(grant) }
