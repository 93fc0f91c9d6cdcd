-- How often a source is listed from now on (0: never), and whether as a reconcile scan, behind live work.
-- @include core
-- @arg now source poll_ms reconcile
-- @reply found
-- @keys m ids src pl
local now = begin(ARGV[1])
local n = call('HGET', ROOT .. 'ids', ARGV[2])
if not n then return 0 end
local packed, poll_ms = call('HGET', ROOT .. 'src', n), tonumber(ARGV[3])
local c = { false, unpack_at(C_FORMAT, packed, S_BYTES + B_BYTES + 1) }
c[C_POLL], c[C_RECONCILE] = poll_ms, tonumber(ARGV[4])
call('HSET', ROOT .. 'src', n, sub(packed, 1, S_BYTES + B_BYTES) .. pack(C_FORMAT, unpack(c, C_FIRST, C_LAST)))
if poll_ms > 0 then
  m[M_FENCE] = m[M_FENCE] + 1
  call('ZADD', ROOT .. 'pl', now + floor(poll_ms * (0.9 + scatter(m[M_FENCE]) / 5)), n)
else
  call('ZREM', ROOT .. 'pl', n)
end
save_meta()
return 1
