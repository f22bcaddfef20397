-- How many live grants each agent has in this shard: agent, count, agent, count … Reads only.
local live, order = {}, {}
for _, member in ipairs(members('ta|')) do
  local agent, id = string.match(member, '^ta|([^|]+)|.*|([^|]+)$')
  if not live[agent] then
    live[agent] = 0
    order[#order + 1] = agent
  end
  live[agent] = live[agent] + count('gt|' .. id .. '|')
end
local out = {}
for _, agent in ipairs(order) do
  out[#out + 1] = agent
  out[#out + 1] = tostring(live[agent])
end
return out
