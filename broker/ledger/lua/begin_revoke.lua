-- Step 9 for some grants of this shard. A = {ids, reason, claim_ms, actor}. Dead ones are left out.
local out = {}
for _, id in ipairs(A.ids) do
  local grant = load(GRANTS, id)
  if grant and next(GRANT_MOVES[grant.state]) then
    begin_revoke(grant, A.reason)
    out[#out + 1] = text_of(grant)
  end
end
return out
