-- What of this shard's stream is to be drained next. A = {after, top, limit}.
-- Returns how many events were ever added (-1: the server doesn't count), how many of them are younger
-- than `top`, the last id that was given, and the events. All of one moment: so what is missing shows.
-- Events come as one text, since reading many small ones takes clients long: of each its id, how many
-- words it has, and these; each is preceded by its length and a space.
if redis.call('EXISTS', AUDIT) == 0 then return { 0, 0, '0-0', '' } end
local about, info = {}, redis.call('XINFO', 'STREAM', AUDIT)
for i = 1, #info, 2 do about[info[i]] = info[i + 1] end
local last = about['last-generated-id']
local top, younger = string.format('%.0f', A.top), 0
if tonumber(string.match(last, '^%d+')) > A.top + 1000 then
  top = '+'  -- the clock was set back since, or this node's is ahead: ids say nothing of age here
else
  -- What was read already counts as read, however young: the clock may have been set back.
  local from = string.format('%.0f-0', A.top + 1)
  if tonumber(string.match(A.after, '^%d+')) > A.top then from = '(' .. A.after end
  younger = #redis.call('XRANGE', AUDIT, from, '+')
end
local parts = {}
local function add(word)
  parts[#parts + 1] = #word
  parts[#parts + 1] = ' '
  parts[#parts + 1] = word
end
for _, event in ipairs(redis.call('XRANGE', AUDIT, '(' .. A.after, top, 'COUNT', A.limit)) do
  add(event[1])
  add(tostring(#event[2]))
  for _, word in ipairs(event[2]) do add(word) end
end
return { about['entries-added'] or -1, younger, last, table.concat(parts) }
