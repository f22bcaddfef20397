-- Ends a token; KEYS[8] is its key. A = {event?, task_id?, actor}, and with `had` = {jti, reason} and
-- claim_ms all that was had with it goes in the same write: the live grants of its task, and of those
-- below, that it is the credential of or that were asked for with it. Answers 1 if it was there, then
-- the grants to revoke, also those that are being revoked already.
local out = { redis.call('DEL', KEYS[8]) }
if out[1] == 1 and A.event then emit('token.revoked', A.task_id, nil, A.event) end

local function was_had(grant)
  if grant.lease == A.had.jti then return true end
  for _, jti in ipairs(grant.via or {}) do
    if jti == A.had.jti then return true end
  end
  return false
end

local function end_below(task_id)
  for _, member in ipairs(members('gt|' .. task_id .. '|')) do
    local grant = load(GRANTS, id_of(member))
    if was_had(grant) then
      begin_revoke(grant, A.had.reason)
      out[#out + 1] = text_of(grant)
    end
  end
  for _, member in ipairs(members('tc|' .. task_id .. '|')) do end_below(id_of(member)) end
end

if A.had and A.task_id ~= '' then end_below(A.task_id) end
return out
