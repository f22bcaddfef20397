-- A request that needs a human's yes. A = {approval, decision, max_pending, max_asked, digest?, actor};
-- KEYS[9] the
-- idempotency key where there is one. Answers the approval that there is for exactly this request, asked
-- for now or before, or that it can't be asked for. The decision is logged whatever it is.
local approval = A.approval
local task = load(TASKS, approval.task_id)
if not task or task.state ~= 'active' or task_due(task) <= NOW then return { 'task_not_active' } end
if A.digest then
  local seen = redis.call('GET', KEYS[9])
  if seen then
    -- The first request with this key was approved, and has been carried out.
    local digest, id = string.match(seen, '^([^|]+)|(.+)$')
    if digest ~= A.digest then return { 'reused' } end
    local grant = load(GRANTS, id)
    if not grant or grant.state ~= 'failed' then
      return { 'replay', grant and text_of(grant) or '' }
    end
  end
end
emit('decision', task.id, nil, A.decision, approval.decision_id)
for _, member in ipairs(members('aq|' .. task.id .. '|' .. approval.digest .. '|')) do
  local held = load(APPROVALS, id_of(member))
  if held and held.expires_at > NOW then return { 'known', text_of(held) } end
end
local waiting = 0
for _, member in ipairs(members('aq|' .. task.id .. '|')) do
  local text = redis.call('HGET', APPROVALS, id_of(member))
  if text and cjson.decode(text).state == 'pending' then waiting = waiting + 1 end
end
if waiting >= A.max_pending then return { 'too_many', tostring(waiting) } end
-- Whoever asks and takes back, over and over, would have people called each time.
if count('at|' .. task.id .. '|') >= A.max_asked then return { 'asked_enough' } end
open_approval(approval, task)
return { 'ok', text_of(approval) }
