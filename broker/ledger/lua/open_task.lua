-- A = {task, digest?, idem_ms, actor, max_children, decision, decision_id, seen?, tokens}; KEYS[9] the
-- idempotency key where there is one; the last A.tokens keys are the tokens it is asked for with.
-- `seen` is the version that was decided on.
local parent = A.task.parent_id and load(TASKS, A.task.parent_id)
local root = parent and root_row(parent)
if changed(parent, A.seen) then return { 'changed' } end
ROOTS[A.task.id] = A.task.root_id
emit('decision', A.task.id, nil, A.decision, A.decision_id)
if A.digest then
  local seen = redis.call('GET', KEYS[9])
  if seen then
    local digest, id = string.match(seen, '^([^|]+)|(.+)$')
    if digest ~= A.digest then return { 'reused' } end
    local task = load(TASKS, id)
    return { 'replay', task and text_of(task) or '' }
  end
end
local task = A.task
if token_ended(A.tokens) then
  emit('task.refused', task.id, nil, { agent = task.agent, reason = 'token_ended' })
  return { 'token_ended' }
end
local field = frozen_chain(task)
if field then
  emit('task.refused', task.id, nil, { agent = task.agent, reason = 'frozen', selector = field })
  return { 'frozen', field }
end
task.created_at = NOW
task.expires_at = NOW + A.ttl_ms
if task.parent_id then
  if not parent or parent.state ~= 'active' or task_due(parent) <= NOW then
    return { 'parent_ended' }
  end
  if count('tc|' .. task.parent_id .. '|') >= A.max_children then return { 'too_many_children' } end
  local short = endow(task, parent, { [root.id] = root, [parent.id] = parent })
  if short then return { 'budget', short } end
  -- A child never outlives its parent, by the one clock both are measured with.
  task.expires_at = math.min(task.expires_at, parent.expires_at)
  index(true, 'tc', task.parent_id, stamp(task))
  local chain = chain_in(root)
  chain.tasks = chain.tasks + 1
  next_version(chain)
  save(TASKS, root)
else
  endow(task, nil, {})
end
if task.heartbeat_ms then task.heartbeat_due = NOW + task.heartbeat_ms end
save(TASKS, task)
index(true, 't', stamp(task))
index(true, 'tb', task.orchestrator, stamp(task))
index(true, 'ta', task.agent, stamp(task))
index(true, 'to', task.owner, stamp(task))
due('t', task.id, task_due(task))
if A.digest then redis.call('SET', KEYS[9], A.digest .. '|' .. task.id, 'PX', A.idem_ms) end
emit('task.opened', task.id, nil, { agent = task.agent, owner = task.owner, purpose = task.purpose,
  capabilities = task.capabilities, expires_at = task.expires_at, parent = task.parent_id,
  subject = task.subject })
return { 'ok', text_of(task) }
