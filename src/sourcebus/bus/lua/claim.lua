-- Takes the next due records of sources that may run now, in fair order, and leases them.
-- @include core place queue settle summon
-- @arg now want lease_ms consumer wait_ms most_waiting token
-- @reply epoch now deadline waiting next_due tokens names field record...
-- @keys m n src bkt r x d z w q0 q1 q2 c bs names wt con inv wake dl dlk dlz
local want, lease_ms, consumer = tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local wait_ms, most_waiting, token = tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7]
local now = begin(ARGV[1])
local deadline = now + lease_ms
local GRACE_MS = 5000 -- a consumer counts as live this long beyond the time in which it must be heard of
local STEP = 128 -- most records promoted, reaped or swept in one call
-- A turn of one source: one record, or as many as are together no more work than this. Taking short ones singly would cost
-- more than doing them, and five milliseconds are no unfairness that anybody could see.
local TURN_MS, TURN_MOST = 5, 16

m[M_CLAIMS] = m[M_CLAIMS] + 1
m[M_NEXT_WAKE] = 0
if token ~= '' then call('ZREM', ROOT .. 'inv', token) end
local moved = reap(now, STEP)
moved = moved + promote(now, STEP)
sweep_wheel(now, min(STEP, 2 * want + 2)) -- faster than claims can fill it, and no more: this one's caller waits
if moved > 0 then flush(now) end

-- Ready buckets by start tag, read in growing pieces: turns may make few of them enough. The `want` smallest are enough in
-- any case, because a served bucket comes back with a larger tag.
local heads, seen, piece = {}, 0, 4
local function more_heads()
  heads = call('ZRANGE', ROOT .. 'z', seen, seen + piece - 1, 'WITHSCORES')
  local ids = {}
  for i = 1, #heads, 2 do ids[#ids + 1] = heads[i] end
  load_buckets(ids)
  seen = seen + #ids
  local all = #ids < piece
  piece = min(piece * 4, want)
  return all
end
local all = more_heads()
local alone = all and #heads == 2 and byte(heads[1]) ~= 98 -- nobody to take turns with

local back_tags, back_ids, back = {}, {}, 0 -- buckets that can be served once more, smallest tag last
local function come_back(tag, id)
  local at = back + 1
  while at > 1 and back_tags[at - 1] < tag do
    back_tags[at], back_ids[at] = back_tags[at - 1], back_ids[at - 1]
    at = at - 1
  end
  back_tags[at], back_ids[at] = tag, id
  back = back + 1
end

local head = 1
local function next_bucket()
  if head > #heads and not all then
    all = more_heads()
    head = 1
  end
  local fresh = tonumber(heads[head + 1])
  if back > 0 and (not fresh or back_tags[back] < fresh) then
    back = back - 1
    return back_ids[back + 1]
  end
  head = head + 2
  return heads[head - 2]
end

-- Live before backfill by weight, never strictly (promise 8). Answers the lane and how many to take from it in a row.
local function choose_lane(s, q)
  if q[N_N2] > 0 then return MANUAL, 1 end
  if q[N_N1] == 0 then return BACKFILL, q[N_N0] end
  if q[N_N0] == 0 then return LIVE, q[N_N1] end
  if s[S_TURN] >= s[S_LIVE_WEIGHT] then return BACKFILL, 1, true end
  return LIVE, max(1, min(q[N_N1], s[S_LIVE_WEIGHT] - s[S_TURN])), true
end

local taken, reply, stop = 0, {}, false
local leases, ends_at = {}, string.format('%d', deadline)
local skips = 512 -- most stale list entries passed over in one call

local function give_back(n, lane, fields, from)
  for i = #fields, from, -1 do call('LPUSH', ROOT .. lane_key(lane, n), fields[i]) end
end

-- Takes up to `most` of one source; answers how many it were.
local function take(n, s, b, most)
  local q = counts_of(n)
  touch_counts(n, q)
  local lane, row, by_turns = choose_lane(s, q)
  local fields = call('LPOP', ROOT .. lane_key(lane, n), max(1, min(most, row)))
  if not fields then
    q[COUNT[lane]] = 0 -- cannot happen; a count that outlives its list must not spin
    return 0
  end
  load_records(fields)
  -- What a lease adds to a record is the same for all of a turn but for the fence; the rest stays packed as it is.
  local leased = pack(X_FORMAT, now, s[S_EST], s[S_COST], 0)
  local fence, got, at = m[M_FENCE], 0, taken * 2
  for i = 1, #fields do
    local field = fields[i]
    local raw = records[field]
    local state, in_lane, attempts, flags
    if type(raw) == 'table' then raw = encode_record(raw) end -- promoted or reaped just now
    if raw then state, in_lane, attempts, flags = byte(raw, 1, 4) end
    if state == READY and in_lane == lane then
      if flags % BEGUN == SOLO and taken + got > 0 then
        give_back(n, lane, fields, i)
        stop = true
        break
      end
      got = got + 1
      local encoded = pack(R_FORMAT, IN_FLIGHT, lane, min(attempts + 1, 255), flags, fence + got) .. leased .. sub(raw, R_BYTES + 1)
      records[field] = encoded
      reply[at + 1], reply[at + 2] = field, encoded
      leases[at + 1], leases[at + 2] = ends_at, field
      at = at + 2
      if flags % BEGUN == SOLO then
        give_back(n, lane, fields, i + 1)
        stop = true
        break
      end
    else
      skips = skips - 1
    end
  end
  m[M_FENCE] = fence + got
  q[COUNT[lane]] = q[COUNT[lane]] - got
  s[S_IN_FLIGHT], s[S_CLAIMED], b[B_IN_FLIGHT] = s[S_IN_FLIGHT] + got, s[S_CLAIMED] + got, b[B_IN_FLIGHT] + got
  -- A stale entry is no turn: backfill that found nothing goes on being next.
  if by_turns and got > 0 then s[S_TURN] = lane == LIVE and s[S_TURN] + got or 0 end
  return got
end

while taken < want and not stop and skips > 0 do
  local id = next_bucket()
  if not id then break end
  local b = bucket(id)
  local where, tag, _, n
  if b then where, tag, _, n = bucket_state(id, b, now) end
  if where == IN_READY then
    local s = source(n)
    local turn = alone and want or max(1, min(TURN_MOST, floor(TURN_MS / s[S_EST])))
    local got = take(n, s, b, min(turn, want - taken, room_of(b, s, now)))
    if got > 0 then
      taken = taken + got
      m[M_V] = max(m[M_V], tag)
      local from = s[S_BUCKET] == 0 and s[S_FINISH] or max(m[M_V], s[S_FINISH])
      s[S_FINISH] = from + got * work(s[S_EST], s)
      charge_tokens(b, got * s[S_COST], now)
    end
    touch_source(n, s)
    place_source(n, s, now)
    local again, next_tag = place_bucket(id, b, now)
    touch_bucket(id, b)
    b[B_TOUCHED] = PLACED
    if again == IN_READY then come_back(next_tag, id) end
  elseif b then
    touch_bucket(id, b)
  end
end
if skips <= 0 then stop = true end

send('HSET', 'r', reply)
send('ZADD', 'x', leases)

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
