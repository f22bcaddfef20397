-- Ends a token; KEYS[9] is its key. A = {event?, task_id?, actor}, and with `had` = {jti, reason} and
-- claim_ms all that was had with it goes in the same write: below its task, the tasks that were opened
-- with it, and the live grants that it is the credential of or that were asked for with it. Answers 1
-- if it was there, how many tasks ended, these, then the grants to revoke, also those that are being
-- revoked already.
local gone = redis.call('DEL', KEYS[9])
if gone == 1 and A.event then emit('token.revoked', A.task_id, nil, A.event) end
local grants, tasks = {}, {}

local function had_with(via)
  for _, jti in ipairs(via or {}) do
    if jti == A.had.jti then return true end
  end
  return false
end

-- `all` of a task that ended with the token: of an earlier try something may be left.
local function end_below(task_id, all)
  for _, member in ipairs(members('gt|' .. task_id .. '|')) do
    local grant = load(GRANTS, id_of(member))
    if all or grant.lease == A.had.jti or had_with(grant.via) then
      begin_revoke(grant, A.had.reason)
      grants[#grants + 1] = text_of(grant)
    end
  end
  for _, member in ipairs(members('tc|' .. task_id .. '|')) do
    local child = load(TASKS, id_of(member))
    local theirs = all or (child and had_with(child.via))
    if child and theirs and not child.ended_at then
      end_task(child, 'revoked', A.had.reason, grants, tasks)
    else
      end_below(id_of(member), theirs)
    end
  end
end

if A.had and A.task_id ~= '' then end_below(A.task_id) end
local out = { gone, #tasks }
for _, row in ipairs(tasks) do out[#out + 1] = row end
for _, row in ipairs(grants) do out[#out + 1] = row end
return out
