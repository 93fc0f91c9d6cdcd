-- Stores change signals. Either all of them are stored or, when a source is unknown, none.
-- @include core place queue summon
-- @arg now
-- @args source key payload
-- @reply ok epoch accepted merged deferred overflowed tokens
-- @reply unknown source...
-- @keys m ids src bkt r d x z w q0 q1 q2 bs wake wt inv
local now = begin(ARGV[1])
local names, fields, seen = {}, {}, {}
for i = 2, #ARGV, 3 do
  if not seen[ARGV[i]] then
    seen[ARGV[i]] = true
    names[#names + 1] = ARGV[i]
  end
end
local ids, numbers, unknown = {}, {}, { 'unknown' }
fetch('ids', names, ids, function(n) return n end)
for _, name in ipairs(names) do
  if ids[name] then numbers[#numbers + 1] = ids[name] else unknown[#unknown + 1] = name end
end
if #unknown > 1 then return unknown end
load_sources(numbers)
for i = 2, #ARGV, 3 do fields[#fields + 1] = ids[ARGV[i]] .. ':' .. ARGV[i + 1] end
load_records(fields)

local answers = { 0, 0, 0, 0 }
for i = 1, #fields do
  local n = ids[ARGV[i * 3 - 1]]
  local s = sources[n]
  local kind, signal, observed, next_byte = struct.unpack('<BBd', ARGV[i * 3 + 1])
  local tail = string.sub(ARGV[i * 3 + 1], next_byte)
  local answer = accept(n, s, fields[i], kind, signal, observed > 0 and observed or now, tail, now)
  answers[answer] = answers[answer] + 1
  count_accept(s, answer)
  touch(n)
end
local look_again = flush(now)
return { 'ok', m[M_EPOCH], answers[ACCEPTED], answers[MERGED], answers[DEFERRED], answers[OVERFLOWED], summon(now, look_again) }
