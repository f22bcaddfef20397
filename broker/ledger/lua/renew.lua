-- A grant lives longer: until ttl_ms from now, and longest_ms from its issue, at most. A = {id, ttl_ms,
-- longest_ms, lives_ms?, decision, decision_id, seen, step, approval?, approved?, approvals?, tokens,
-- actor}; the last A.tokens keys are the tokens it is asked with. `lives_ms` is how long the backend
-- lets it live from now, where it was renewed there; else it lives there as long as it did.
-- Whatever has ended, or is ending, stays so.
local grant = load(GRANTS, A.id)
if not grant then return { 'unknown' } end
local task = load(TASKS, grant.task_id)
if task and task.state == 'active' and changed(task, A.seen) then return { 'changed' } end
if A.approval and not approved(A.approval, A.approved) then return { 'changed' } end
emit('decision', grant.task_id, grant.id, A.decision, A.decision_id)
local function refuse(reason, more)
  emit('grant.refused', grant.task_id, grant.id,
    { capability = grant.capability, reason = reason, selector = more }, A.decision_id)
  return { reason, more or '' }
end
if not task or task.state ~= 'active' or task_due(task) <= NOW then return refuse('task_not_active') end
if grant.state ~= 'active' or grant.expires_at <= NOW then return refuse('not_active', grant.state) end
if has_successor(grant) then return refuse('replaced', grant.replaced_by) end
if token_ended(A.tokens) then return refuse('token_ended') end
local field = frozen_chain(task, 'capability:' .. grant.capability, 'backend:' .. grant.backend)
if field then return refuse('frozen', field) end
local elevation = grant.elevation_id and live_elevation(task, grant.elevation_id)
if grant.elevation_id and not elevation then return refuse('elevation_ended') end
local short = short_of(task, A.step)
if short then return refuse('budget', short) end
local lives_until = A.lives_ms and NOW + A.lives_ms or grant.lives_until
local ends = math.min(NOW + A.ttl_ms, grant.created_at + A.longest_ms, task.expires_at)
if elevation then ends = math.min(ends, elevation.expires_at) end
if lives_until then ends = math.min(ends, lives_until) end
if ends <= grant.expires_at then return refuse('not_longer') end
if A.approval then
  use_approval(A.approval, grant.id)
  grant.approval_id = A.approval
  grant.approvals = A.approvals
end
grant.decision_id = A.decision_id
grant.expires_at = ends
grant.lives_until = lives_until
save(GRANTS, grant)
due('g', grant.id, ends)
take(task, A.step)
emit('grant.renewed', grant.task_id, grant.id, { capability = grant.capability, expires_at = ends,
  approval = A.approval })
return { 'ok', text_of(grant) }
