-- Step 4. A = {grant, decision, seen?, step?, digest?, idem_ms, max_live, pending_ms, tokens, approved?,
-- over?, place_until?, actor}; KEYS[9] the idempotency key where there is one; the last A.tokens keys are the tokens it is asked
-- with. `seen` is the version that was decided on. The decision is logged whatever comes of it.
-- `over` is the quota that has no place left, `place_until` until when the place taken is the grant's.
local task = load(TASKS, A.grant.task_id)
if task and task.state == 'active' and changed(task, A.seen) then return { 'changed' } end
if A.grant.approval_id and not approved(A.grant.approval_id, A.approved) then return { 'changed' } end
if A.place_until and NOW > A.place_until then return { 'changed' } end
DECISIONS[A.grant.id] = A.grant.decision_id
emit('decision', A.grant.task_id, A.grant.id, A.decision)
if A.digest then
  local seen = redis.call('GET', KEYS[9])
  if seen then
    local digest, id = string.match(seen, '^([^|]+)|(.+)$')
    if digest ~= A.digest then return { 'reused' } end
    local first = load(GRANTS, id)
    -- Nothing came of a failed one: the same key may try again.
    if not first or first.state ~= 'failed' then
      return { 'replay', first and text_of(first) or '' }
    end
  end
end
local grant = A.grant
local refusal, elevation = nil, nil
-- For a rotation there may be one more than usual, until the old one has ended.
local old = grant.replaces and load(GRANTS, grant.replaces)
local most = A.max_live + (old and 1 or 0)
if not task or task.state ~= 'active' or task_due(task) <= NOW then
  refusal = { 'task_not_active' }
elseif token_ended(A.tokens) then
  refusal = { 'token_ended' }
end
if not refusal then
  local field = frozen_chain(task, 'capability:' .. grant.capability, 'backend:' .. grant.backend)
  elevation = grant.elevation_id and live_elevation(task, grant.elevation_id)
  local live = count('gt|' .. task.id .. '|' .. grant.capability .. '|')
  local short = short_of(task, A.step)
  local handle = grant.handle and (task.handles or {})[grant.handle]
  if field then
    refusal = { 'frozen', field }
  elseif old and (old.state ~= 'active' or old.expires_at <= NOW or has_successor(old)) then
    refusal = { 'replaced', old.state }
  elseif live >= most then
    refusal = { 'quota', tostring(live) }
  elseif A.over then
    refusal = { 'over_quota', A.over }
  elseif short then
    refusal = { 'budget', short }
  elseif grant.handle and (not handle or handle.retired) then
    refusal = { 'handle_retired' }
  elseif grant.elevation_id and not elevation then
    refusal = { 'elevation_ended' }
  end
end
if refusal then
  emit('grant.refused', grant.task_id, grant.id,
    { capability = grant.capability, reason = refusal[1], selector = refusal[2] })
  return refusal
end
if grant.approval_id then use_approval(grant.approval_id, grant.id) end
grant.state = 'pending'
grant.created_at = NOW
grant.expires_at = math.min(NOW + A.ttl_ms, task.expires_at)
if elevation then grant.expires_at = math.min(grant.expires_at, elevation.expires_at) end
grant.due_at = NOW + A.pending_ms
save(GRANTS, grant)
index(true, 'g', stamp(grant))
index(true, 'gb', grant.orchestrator, stamp(grant))
index_grant(grant, true)
due('g', grant.id, grant.due_at)
if old then
  old.replaced_by = grant.id
  save(GRANTS, old)
end
if A.step then take(task, A.step) end
if A.digest then redis.call('SET', KEYS[9], A.digest .. '|' .. grant.id, 'PX', A.idem_ms) end
emit('grant.reserved', grant.task_id, grant.id, { capability = grant.capability,
  backend = grant.backend, expires_at = grant.expires_at, intent = grant.intent,
  approval = grant.approval_id, elevation = grant.elevation_id, replaces = grant.replaces })
return { 'ok', text_of(grant), tostring(NOW) }
