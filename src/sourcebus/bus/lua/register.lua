-- Makes a source known, or changes what it may do. What is pending stays.
-- @include core place queue summon
-- @arg now source bucket rate_per_ms burst cap weight window_ms max_attempts backoff_ms backoff_cap_ms max_pending cost live_weight refresh_ms poll_ms paused
-- @reply slot created tokens
-- @keys m ids names src bkt bids bs pl z w wake wt inv
local now = begin(ARGV[1])
local name, shared = ARGV[2], ARGV[3]
local n = call('HGET', ROOT .. 'ids', name)
local created = not n
if created then
  m[M_SOURCES] = m[M_SOURCES] + 1
  n = string.format('%d', m[M_SOURCES])
  call('HSET', ROOT .. 'ids', name, n)
  call('HSET', ROOT .. 'names', n, name)
  local s = {}
  for i = 1, S_SIZE do s[i] = 0 end
  s[S_EST] = 10
  sources[n] = s
end
local s = source(n)

local function new_bucket(solo)
  m[M_BUCKETS] = m[M_BUCKETS] + 1
  local id = string.format('%d', m[M_BUCKETS])
  local b = {}
  for i = 1, B_SIZE do b[i] = 0 end
  b[B_SOLO], b[B_FACTOR] = solo, 1
  buckets[id] = b
  return id
end

local old = s[S_BUCKET] > 0 and tostring(s[S_BUCKET])
local id
if shared ~= '' then
  id = call('HGET', ROOT .. 'bids', shared)
  if not id then
    id = new_bucket(0)
    call('HSET', ROOT .. 'bids', shared, id)
  end
elseif old and bucket(old)[B_SOLO] > 0 then
  id = old
else
  id = new_bucket(tonumber(n))
end
if old and old ~= id then
  local left, entered = bucket(old), bucket(id)
  left[B_IN_FLIGHT], entered[B_IN_FLIGHT] = left[B_IN_FLIGHT] - s[S_IN_FLIGHT], entered[B_IN_FLIGHT] + s[S_IN_FLIGHT]
  call('ZREM', ROOT .. 'bs:' .. old, n)
  if left[B_SOLO] > 0 then left[B_SOLO] = 0 end
  touched_buckets[old] = true
end
s[S_BUCKET] = tonumber(id)
local b = bucket(id)
b[B_RATE], b[B_BURST], b[B_CAP] = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
s[S_WEIGHT], s[S_WINDOW], s[S_MAX_ATTEMPTS] = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
s[S_BACKOFF], s[S_BACKOFF_CAP], s[S_MAX_PENDING] = tonumber(ARGV[10]), tonumber(ARGV[11]), tonumber(ARGV[12])
s[S_COST], s[S_LIVE_WEIGHT], s[S_REFRESH] = tonumber(ARGV[13]), tonumber(ARGV[14]), tonumber(ARGV[15])
local poll_ms = tonumber(ARGV[16])
if poll_ms ~= s[S_POLL] then
  s[S_POLL] = poll_ms
  if poll_ms > 0 then
    call('ZADD', ROOT .. 'pl', now + poll_ms, n)
  else
    call('ZREM', ROOT .. 'pl', n)
  end
end
s[S_PAUSED] = tonumber(ARGV[17])
touch(n)
local look_again = flush(now)
return { tonumber(n), created and 1 or 0, summon(now, look_again) }
