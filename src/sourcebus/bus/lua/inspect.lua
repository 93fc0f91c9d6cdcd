-- How sources stand. Reads only.
-- @include core place queue
-- @arg now
-- @args source
-- @reply now consumers waiting ticked stored oldest_ms...
-- @keys m ids n src bkt r q0 q1 q2 con wt
local now = begin(ARGV[1])
local function live(key) return call('ZCOUNT', ROOT .. key, now, '+inf') end
local answer = { floor(now), live('con'), live('wt'), floor(m[M_TICKED]) }
for i = 2, #ARGV do
  local n = call('HGET', ROOT .. 'ids', ARGV[i])
  local packed = n and call('HGET', ROOT .. 'src', n)
  if packed then
    local s = decode_source(packed, n)
    local oldest = math.huge
    for lane = BACKFILL, MANUAL do
      local first = call('LINDEX', ROOT .. lane_key(lane, n), 0)
      local r = first and record(first)
      if r and r[R_STATE] == READY then oldest = min(oldest, r[R_SINCE]) end
    end
    if s[S_BUCKET] ~= 0 then -- in place of its own, which is at rest
      packed = sub(packed, 1, S_BYTES) .. call('HGET', ROOT .. 'bkt', bucket_id(n, s)) .. sub(packed, S_BYTES + B_BYTES + 1)
    end
    answer[#answer + 1] = packed .. call('HGET', ROOT .. 'n', n)
    answer[#answer + 1] = oldest == math.huge and -1 or floor(oldest)
  else
    answer[#answer + 1] = false
    answer[#answer + 1] = false
  end
end
return answer
