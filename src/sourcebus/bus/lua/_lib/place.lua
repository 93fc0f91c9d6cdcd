-- Where a source and its bucket belong. Every transition ends here; nothing else writes the sets `z` (ready buckets,
-- scored by start tag), `w` (buckets waiting until a time; and sources of a shared bucket that are away until then) and
-- `bs:<bucket>` (runnable sources of a shared bucket).
local NOWHERE, IN_READY, IN_WAIT = 0, 1, 2
local NO_REASON, WHY_TOKENS, WHY_PAUSE, WHY_CAP = 0, 1, 2, 3
local REFRESH_TAG = -1 -- a manual refresh goes before every start tag
local LEAST_FACTOR = 1 / 64 -- of the configured rate: something must be tried to learn that it works again
local RECOVERY_MS = 600000 -- a halved rate is whole again after this long without a 429

-- Worker time as the fair order counts it: whole microseconds, lighter for heavier sources.
local function work(ms, s) return floor(ms * 1000 / s[S_WEIGHT] + 0.5) end

-- Start tag of start-time fair queueing (Goyal, Vin, Cheng 1996): no credit for having been idle. Who was ready all along
-- keeps what comes back when a call took less time than was charged: else sources whose calls vary get less than their share.
local function start_tag(n, s, was_ready)
  if s[S_PAUSED] ~= 0 then return nil end
  local q = counts_of(n)
  if q[N_N2] > 0 then return REFRESH_TAG end
  if q[N_N0] + q[N_N1] == 0 then return nil end
  return was_ready and s[S_FINISH] or max(m[M_V], s[S_FINISH])
end

local function rate_now(b, now)
  return b[B_RATE] * min(1, b[B_FACTOR] + max(0, now - b[B_FACTOR_AT]) / RECOVERY_MS)
end

-- Answers where, at, why and, when runnable, the source to serve. GCRA (ITU-T I.371): one number, an exact wake time.
local function bucket_state(id, b, now)
  local n, tag, s
  if b[B_SHARED] == 0 then
    n = id
    s = source(n)
    tag = s and start_tag(n, s, b[B_WHERE] == IN_READY)
  else
    local head = call('ZRANGE', ROOT .. 'bs:' .. id, 0, 0, 'WITHSCORES')
    n, tag = head[1], tonumber(head[2])
    s = n and source(n)
  end
  if not tag or not s then return NOWHERE, 0, NO_REASON end
  if b[B_PAUSE] > now then return IN_WAIT, max(b[B_PAUSE], s[S_AWAY]), WHY_PAUSE end
  if s[S_AWAY] > now then return IN_WAIT, s[S_AWAY], WHY_PAUSE end
  if b[B_IN_FLIGHT] >= b[B_CAP] then return NOWHERE, 0, WHY_CAP end
  if b[B_RATE] > 0 and tag ~= REFRESH_TAG then
    local room = b[B_BURST] - min(s[S_COST], b[B_BURST])
    -- The burst is as long as the configured rate makes it: a halved one must not make it longer.
    local wake = math.ceil(b[B_TAT] - room / b[B_RATE])
    if wake > now then return IN_WAIT, wake, WHY_TOKENS end
  end
  return IN_READY, tag, NO_REASON, n
end

-- How long work was kept waiting, by reason: the time spent in a place counts when the place is left.
local function count_wait(b, now)
  local waited = now - b[B_SINCE]
  if b[B_WHERE] == IN_READY then
    b[B_W_WORKER] = b[B_W_WORKER] + waited
  elseif b[B_WHY] == WHY_TOKENS then
    b[B_W_TOKENS] = b[B_W_TOKENS] + waited
  elseif b[B_WHY] == WHY_PAUSE then
    b[B_W_PAUSE] = b[B_W_PAUSE] + waited
  elseif b[B_WHY] == WHY_CAP then
    b[B_W_CAP] = b[B_W_CAP] + waited
  end
  b[B_SINCE] = now
end

local function place_bucket(id, b, now)
  local where, at, why, n = bucket_state(id, b, now)
  if where ~= b[B_WHERE] or why ~= b[B_WHY] then
    count_wait(b, now)
    if where == IN_READY and b[B_SHARED] == 0 then sources[n][S_FINISH] = max(m[M_V], sources[n][S_FINISH]) end
    b[B_WHERE], b[B_WHY] = where, why
  end
  b[B_AT] = at
  return where, at, why, n
end

-- Keeps a shared bucket's own order of its sources; a bucket with one source needs none. A source that is away stands in `w`
-- by its own number, which is free there. Answers when it has to be looked at again.
local function place_source(n, s, now)
  if s[S_BUCKET] == 0 then return math.huge end
  local key = ROOT .. 'bs:' .. bucket_id(n, s)
  if s[S_AWAY] > now then
    call('ZREM', key, n)
    call('ZADD', ROOT .. 'w', s[S_AWAY], n)
    return s[S_AWAY]
  end
  if s[S_AWAY] > 0 then
    call('ZREM', ROOT .. 'w', n)
    s[S_AWAY] = 0
  end
  local tag = start_tag(n, s)
  if tag then call('ZADD', key, tag, n) else call('ZREM', key, n) end
  return math.huge
end

local function charge_tokens(b, cost, now)
  if b[B_RATE] > 0 then b[B_TAT] = max(now, b[B_TAT]) + cost / rate_now(b, now) end
end

-- How many claims a bucket has tokens and slots for; it is known to have them for one.
local function room_of(b, s, now)
  local slots = b[B_CAP] - b[B_IN_FLIGHT]
  if b[B_RATE] == 0 then return slots end
  local ahead = (b[B_BURST] - min(s[S_COST], b[B_BURST])) / b[B_RATE] - max(0, b[B_TAT] - now)
  local spare = ahead * rate_now(b, now)
  return max(1, min(slots, floor(spare / s[S_COST] + 1e-9) + 1))
end

local function earliest(key)
  local head = call('ZRANGE', ROOT .. key, 0, 0, 'WITHSCORES')
  return tonumber(head[2])
end

local function flush_buckets(now)
  local set, ready, unready, waiting, unwaiting = {}, {}, {}, {}, {}
  local soonest = math.huge
  for i = 1, #touched_buckets do
    local id = touched_buckets[i]
    local b = buckets[id]
    if b then
      if b[B_TOUCHED] == TOUCHED then place_bucket(id, b, now) end
      local where, at, was = b[B_WHERE], b[B_AT], b[B_WAS]
      if where ~= was or at ~= b[B_WAS_AT] then
        if where == IN_READY then
          ready[#ready + 1] = at
          ready[#ready + 1] = id
        elseif where == IN_WAIT then
          waiting[#waiting + 1] = at
          waiting[#waiting + 1] = id
          soonest = min(soonest, at)
        end
        if was == IN_READY and where ~= IN_READY then unready[#unready + 1] = id end
        if was == IN_WAIT and where ~= IN_WAIT then unwaiting[#unwaiting + 1] = id end
      end
      b[B_TOUCHED], b[B_WAS], b[B_WAS_AT] = false, where, at
      if b[B_SHARED] == 0 then
        touch_source(id, sources[id]) -- which its value is a part of
      else
        set[#set + 1] = id
        set[#set + 1] = pack(B_FORMAT, unpack(b, B_FIRST, B_LAST))
      end
    end
  end
  touched_buckets = {}
  send('HSET', 'bkt', set)
  send('ZADD', 'z', ready)
  send('ZREM', 'z', unready)
  send('ZADD', 'w', waiting)
  send('ZREM', 'w', unwaiting)
  return soonest
end

-- Writes the touched values of one hash; `touched` is slot 1 of each.
local function flush_hash(key, names, cache, encode)
  local set = {}
  for i = 1, #names do
    local value = cache[names[i]]
    if value then
      value[1] = false
      set[#set + 1] = names[i]
      set[#set + 1] = encode(names[i], value)
    end
  end
  send('HSET', key, set)
end

local function encode_counts(_, q) return pack(N_FORMAT, unpack(q, N_FIRST, N_LAST)) end

-- Writes everything. Answers whether something became due earlier than the waiting consumer means to look.
local function flush(now)
  local back = math.huge
  for i = 1, #touched_sources do
    local s = sources[touched_sources[i]]
    if s then back = min(back, place_source(touched_sources[i], s, now)) end
  end
  for key, list in pairs(pushes) do send('RPUSH', key, list) end
  pushes = {}
  local due = flush_records()
  local wake = flush_buckets(now)
  flush_hash('n', touched_counts, counts, encode_counts)
  flush_hash('src', touched_sources, sources, encode_source)
  touched_counts, touched_sources = {}, {}
  save_meta()
  return min(due, wake, back) < m[M_NEXT_WAKE]
end
