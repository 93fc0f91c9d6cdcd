-- Takes the next due records of sources that may run now, in fair order, and leases them.
-- @include core place queue settle summon
-- @arg now want lease_ms consumer wait_ms most_waiting token
-- @reply epoch now deadline waiting next_due tokens names field record...
-- @keys m src bkt r x d z w q0 q1 q2 c bs names wt con inv wake dl dlk dlz
local want, lease_ms, consumer = tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local wait_ms, most_waiting, token = tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7]
local now = begin(ARGV[1])
local deadline = now + lease_ms
local GRACE_MS = 5000 -- a consumer counts as live this long beyond the time in which it must be heard of
local STEP = 128 -- most records promoted, reaped or swept in one call

m[M_CLAIMS] = m[M_CLAIMS] + 1
m[M_NEXT_WAKE] = 0
if token ~= '' then call('ZREM', ROOT .. 'inv', token) end
local moved = reap(now, STEP)
moved = moved + promote(now, STEP)
sweep_wheel(now, STEP)
if moved > 0 then flush(now) end

-- The `want` smallest start tags are enough: a served bucket comes back with a larger one.
local heads = call('ZRANGE', ROOT .. 'z', 0, want - 1, 'WITHSCORES')
local ids, numbers = {}, {}
for i = 1, #heads, 2 do ids[#ids + 1] = heads[i] end
fetch('bkt', missing(ids, buckets), buckets, decode_bucket)
for _, id in ipairs(ids) do
  if buckets[id] and buckets[id][B_SOLO] > 0 then numbers[#numbers + 1] = tostring(buckets[id][B_SOLO]) end
end
fetch('src', missing(numbers, sources), sources, decode_source)

local again = {} -- buckets that can be served once more, smallest tag last
local function come_back(tag, id)
  local at = #again + 1
  while at > 1 and again[at - 1][1] < tag do at = at - 1 end
  table.insert(again, at, { tag, id })
end

local head = 1
local function next_bucket()
  local fresh, back = tonumber(heads[head + 1]), again[#again]
  if back and (not fresh or back[1] < fresh) then
    again[#again] = nil
    return back[2]
  end
  if fresh then
    head = head + 2
    return heads[head - 2]
  end
  return nil
end

-- Live before backfill by weight, never strictly (promise 8).
local function choose_lane(s)
  if s[S_N2] > 0 then return MANUAL end
  if s[S_N1] == 0 then return BACKFILL end
  if s[S_N0] == 0 then return LIVE end
  if s[S_TURN] >= s[S_LIVE_WEIGHT] then
    s[S_TURN] = 0
    return BACKFILL
  end
  s[S_TURN] = s[S_TURN] + 1
  return LIVE
end

local taken, reply = 0, {}
local buffers = {} -- what was popped from a lane's list and not used yet
local alone = #ids <= 1
local SKIPS = 512 -- most stale list entries passed over in one call
local stop = false

local function pop(n, lane)
  local key = lane_key(lane, n)
  local buffer = buffers[key]
  if not buffer or buffer.at > #buffer.list then
    local count = alone and (want - taken) or 1
    local list = call('LPOP', ROOT .. key, count)
    if not list then return nil end
    if count > 1 then load_records(list) end
    buffer = { list = list, at = 1 }
    buffers[key] = buffer
  end
  buffer.at = buffer.at + 1
  return buffer.list[buffer.at - 1], buffer
end

local function next_record(n, s)
  while SKIPS > 0 do
    local lane = choose_lane(s)
    local field, buffer = pop(n, lane)
    if not field then
      s[COUNT[lane]] = 0 -- cannot happen; a count that outlives its list must not spin
      touch(n)
      if s[S_N0] + s[S_N1] + s[S_N2] == 0 then return nil end
    else
      local r = record(field)
      if r and r[R_STATE] == READY and r[R_LANE] == lane then
        if r[R_FLAGS] == SOLO and taken > 0 then
          buffer.at = buffer.at - 1
          stop = true
          return nil
        end
        return field, r, lane
      end
      SKIPS = SKIPS - 1
    end
  end
  stop = true
  return nil
end

while taken < want and not stop do
  local id = next_bucket()
  if not id then break end
  local b = bucket(id)
  local where, tag, _, n
  if b then where, tag, _, n = bucket_state(id, b, now) end
  if where == IN_READY then
    local s = source(n)
    local field, r, lane = next_record(n, s)
    if field then
      taken = taken + 1
      m[M_FENCE] = m[M_FENCE] + 1
      m[M_V] = max(m[M_V], tag)
      s[COUNT[lane]] = s[COUNT[lane]] - 1
      s[S_IN_FLIGHT], s[S_CLAIMED] = s[S_IN_FLIGHT] + 1, s[S_CLAIMED] + 1
      s[S_FINISH] = max(m[M_V], s[S_FINISH]) + s[S_EST] / s[S_WEIGHT]
      b[B_IN_FLIGHT] = b[B_IN_FLIGHT] + 1
      charge_tokens(b, s[S_COST], now)
      r[R_STATE], r[R_ATTEMPTS], r[R_AT] = IN_FLIGHT, r[R_ATTEMPTS] + 1, m[M_FENCE]
      r[X_CLAIMED], r[X_EST], r[X_COST], r[X_DIRTY] = now, s[S_EST], s[S_COST], 0
      local encoded = encode_record(r)
      put(field, r, encoded)
      zput('x', field, deadline)
      reply[#reply + 1] = field
      reply[#reply + 1] = encoded
      if r[R_FLAGS] == SOLO then stop = true end
    end
    touched_sources[n] = true
    if b[B_SOLO] == 0 then place_source(n) end
    place_bucket(id, now)
    placed[id] = true
    if field and b[B_WHERE] == IN_READY then come_back(b[B_AT], id) end
  elseif b then
    touched_buckets[id] = true
  end
end
for key, buffer in pairs(buffers) do
  for i = #buffer.list, buffer.at, -1 do call('LPUSH', ROOT .. key, buffer.list[i]) end
end

local next_due, waiting = -1, 0
if taken == 0 and not stop then
  next_due = min(earliest('d') or math.huge, earliest('w') or math.huge, earliest('x') or math.huge)
  if wait_ms > 0 and live('wt', now) < most_waiting then
    waiting = 1
    m[M_NEXT_WAKE] = min(next_due, now + wait_ms)
    call('ZADD', ROOT .. 'wt', now + wait_ms + 2000, consumer)
  end
end
if waiting == 0 then call('ZREM', ROOT .. 'wt', consumer) end
call('ZADD', ROOT .. 'con', now + max(lease_ms, wait_ms) + GRACE_MS, consumer)
flush(now)

local tokens = {}
if (taken > 0 or stop) and call('ZCARD', ROOT .. 'z') > 0 then
  local idle = live('wt', now)
  if idle > 0 then
    wake(idle)
  elseif live('inv', now) < MOST_OPEN then
    tokens[1] = issue(now)
  end
end
local answer = { m[M_EPOCH], now, deadline, waiting, next_due == math.huge and -1 or math.ceil(next_due), tokens }
for i = 1, #reply do answer[6 + i] = reply[i] end
return answer
