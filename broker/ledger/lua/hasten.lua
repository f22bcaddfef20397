-- A backend answers again: the capability's waiting revocations are due now. A = {backend, capability}; without
-- a capability those of grants whose leases were never learnt.
local moved = 0
for _, state in ipairs({ 'revoking', 'stuck' }) do
  for _, member in ipairs(members('gs|' .. state .. '|' .. A.backend .. '|')) do
    local id = id_of(member)
    local grant = load(GRANTS, id)
    if grant and (grant.attempts or 0) > 0
      and (grant.capability == A.capability or (A.capability == '' and not grant.lease)) then
      grant.due_at = NOW
      save(GRANTS, grant)
      due('g', id, NOW)
      moved = moved + 1
    end
  end
end
return moved
