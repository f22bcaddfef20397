-- Which layout this shard's tables have, and how many shards there are. KEYS[9] has both.
-- A = {version, first, shards}. A shard with nothing in it has the newest; one with tables and no
-- version is from before versions were written. Returns both.
local layout = KEYS[9]
if redis.call('HEXISTS', layout, 'version') == 0 then
  local version = A.version
  for at = 1, 8 do
    if redis.call('EXISTS', KEYS[at]) == 1 then version = A.first end
  end
  redis.call('HSET', layout, 'version', version, 'shards', A.shards)
end
local held = redis.call('HMGET', layout, 'version', 'shards')
return { tonumber(held[1]), tonumber(held[2]) }
