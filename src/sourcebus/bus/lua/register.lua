-- Makes a source known, or changes what it may do. What is pending stays.
-- @include core place queue summon
-- @arg now source bucket rate_per_ms burst cap weight window_ms max_attempts backoff_ms backoff_cap_ms max_pending cost live_weight refresh_ms poll_ms paused
-- @reply slot created tokens
-- @keys m ids names n src bkt bids bs pl z w wake wt inv
local now = begin(ARGV[1])
local name, shared = ARGV[2], ARGV[3]
local n = call('HGET', ROOT .. 'ids', name)
local created = not n
if created then
  m[M_SOURCES] = m[M_SOURCES] + 1
  n = string.format('%d', m[M_SOURCES])
  call('HSET', ROOT .. 'ids', name, n)
  call('HSET', ROOT .. 'names', n, name)
  local s = { false, string.rep('\0', S_BYTES + B_BYTES + C_BYTES) }
  for i = S_FIRST, S_LAST do s[i] = 0 end
  s[S_EST] = 10
  sources[n] = s
  counts[n] = { false }
  for i = N_FIRST, N_LAST do counts[n][i] = 0 end
end
local s = source(n)
local c, q = cold(n, s), counts_of(n)
local old = not created and bucket_id(n, s)

local function new_bucket(id, is_shared)
  local b = { false }
  for i = B_WAS_AT, B_LAST do b[i] = 0 end
  b[B_SHARED], b[B_FACTOR], b[B_SINCE] = is_shared, 1, now
  buckets[id] = b
end

local id
if shared == '' then
  s[S_BUCKET] = 0
  id = n
  if old ~= id then new_bucket(id, 0) end
else
  local number = call('HGET', ROOT .. 'bids', shared)
  if not number then
    m[M_BUCKETS] = m[M_BUCKETS] + 1
    number = m[M_BUCKETS]
    call('HSET', ROOT .. 'bids', shared, number)
    new_bucket('b' .. number, 1)
  end
  s[S_BUCKET] = tonumber(number)
  id = bucket_id(n, s)
end
if old and old ~= id then
  local left, entered = bucket(old), bucket(id)
  left[B_IN_FLIGHT], entered[B_IN_FLIGHT] = left[B_IN_FLIGHT] - s[S_IN_FLIGHT], entered[B_IN_FLIGHT] + s[S_IN_FLIGHT]
  if old == n then
    call('ZREM', ROOT .. 'z', n)
    call('ZREM', ROOT .. 'w', n)
    buckets[n] = false
  else
    call('ZREM', ROOT .. 'bs:' .. old, n)
    call('ZREM', ROOT .. 'w', n)
    touch_bucket(old, left)
  end
end
local b = bucket(id)
b[B_RATE], b[B_BURST], b[B_CAP] = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
s[S_WEIGHT], s[S_WINDOW], c[C_MAX_ATTEMPTS] = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
c[C_BACKOFF], c[C_BACKOFF_CAP], q[N_MAX_PENDING] = tonumber(ARGV[10]), tonumber(ARGV[11]), tonumber(ARGV[12])
s[S_COST], s[S_LIVE_WEIGHT], c[C_REFRESH] = tonumber(ARGV[13]), tonumber(ARGV[14]), tonumber(ARGV[15])
local poll_ms = tonumber(ARGV[16])
if poll_ms ~= c[C_POLL] then
  c[C_POLL] = poll_ms
  if poll_ms > 0 then
    call('ZADD', ROOT .. 'pl', now + poll_ms, n)
  else
    call('ZREM', ROOT .. 'pl', n)
  end
end
s[S_PAUSED] = tonumber(ARGV[17])
touch_counts(n, q)
touch(n)
local look_again = flush(now)
return { tonumber(n), created and 1 or 0, summon(now, look_again) }
