-- How sources stand. Reads only.
-- @include core place queue
-- @arg now
-- @args source
-- @reply now consumers ticked source_packed bucket_packed counts_packed oldest_ms...
-- @keys m ids n src bkt r q0 q1 q2 con
local now = begin(ARGV[1])
local answer = { math.floor(now), call('ZCOUNT', ROOT .. 'con', now, '+inf'), math.floor(m[M_TICKED]) }
for i = 2, #ARGV do
  local n = call('HGET', ROOT .. 'ids', ARGV[i])
  local packed = n and call('HGET', ROOT .. 'src', n)
  if packed then
    local s = decode_source(packed, n)
    local id = bucket_id(n, s)
    local oldest = math.huge
    for lane = BACKFILL, MANUAL do
      local first = call('LINDEX', ROOT .. lane_key(lane, n), 0)
      local r = first and record(first)
      if r and r[R_STATE] == READY then oldest = min(oldest, r[R_SINCE]) end
    end
    answer[#answer + 1] = packed
    answer[#answer + 1] = s[S_BUCKET] == 0 and sub(packed, S_BYTES + 1, S_BYTES + B_BYTES) or call('HGET', ROOT .. 'bkt', id)
    answer[#answer + 1] = call('HGET', ROOT .. 'n', n)
    answer[#answer + 1] = oldest == math.huge and -1 or math.floor(oldest)
  else
    for _ = 1, 4 do answer[#answer + 1] = false end
  end
end
return answer
