-- Makes a dead letter's event pending again with fresh attempts, or drops it for good.
-- @include core place queue settle summon
-- @arg now id keep
-- @reply found tokens
-- @keys m n src bkt r d x z w q0 q1 q2 bs dl dlk dlz wake wt inv
local now = begin(ARGV[1])
local id = ARGV[2]
local packed = call('HGET', ROOT .. 'dl', id)
if not packed then return { 0, {} } end
local letter = cmsgpack.unpack(packed)
local field, kind, since = letter[1], letter[2], letter[6]
local n = owner(field)
load_sources({ n })
local s = sources[n]
if not s then
  call('HDEL', ROOT .. 'dl', id)
  call('HDEL', ROOT .. 'dlk', field)
  call('ZREM', ROOT .. 'dlz', id)
  return { 0, {} }
end
forget_dead_letter(s, field)
if ARGV[3] == '1' then
  accept(n, s, field, pack(P_FORMAT, kind, 0, now), now)
  local r = record(field)
  if r and r[R_STATE] ~= IN_FLIGHT then
    r[R_SINCE] = min(r[R_SINCE], since)
    put(field, r)
  end
end
touch(n)
local look_again = flush(now)
return { 1, summon(now, look_again) }
