-- Keeps leases and their consumer alive, and charges a running extraction for the worker time it has used so far.
-- @include core place queue settle
-- @arg now lease_ms consumer
-- @args field fence running
-- @reply extended...
-- @keys m n src bkt r x z w bs con
local now = begin(ARGV[1])
local deadline = now + tonumber(ARGV[2])
local answer = {}
if ARGV[3] ~= '' then call('ZADD', ROOT .. 'con', deadline, ARGV[3]) end
for i = 4, #ARGV, 3 do
  local field = ARGV[i]
  local r = held(field, tonumber(ARGV[i + 1]))
  local n = owner(field)
  local s = r and source(n)
  if s then
    r[R_DEADLINE] = deadline
    put(field, r)
    local used = now - r[X_CLAIMED]
    if ARGV[i + 2] == '1' and used > r[X_EST] then
      s[S_FINISH] = s[S_FINISH] + work(used - r[X_EST], s)
      r[X_EST] = used
      touch(n)
    end
  end
  answer[#answer + 1] = s and 1 or 0
end
flush(now)
return answer
