-- Where a source and its bucket belong. Every transition ends here; nothing else writes the sets `z` (ready buckets,
-- scored by start tag), `w` (buckets waiting until a time) and `bs:<bucket>` (runnable sources of a shared bucket).
local NOWHERE, IN_READY, IN_WAIT = 0, 1, 2
local NO_REASON, WHY_TOKENS, WHY_PAUSE, WHY_CAP = 0, 1, 2, 3
local REFRESH_TAG = -1 -- a manual refresh goes before every start tag
local RECOVERY_MS = 600000 -- a halved rate is whole again after this long without a 429

-- Start tag of start-time fair queueing (Goyal, Vin, Cheng 1996): no credit for having been idle.
local function start_tag(s)
  if s[S_PAUSED] ~= 0 then return nil end
  if s[S_N2] > 0 then return REFRESH_TAG end
  if s[S_N0] + s[S_N1] == 0 then return nil end
  return max(m[M_V], s[S_FINISH])
end

local function rate_now(b, now)
  return b[B_RATE] * min(1, b[B_FACTOR] + max(0, now - b[B_FACTOR_AT]) / RECOVERY_MS)
end

-- Answers where, at, why and, when runnable, the source to serve. GCRA (ITU-T I.371): one number, an exact wake time.
local function bucket_state(id, b, now)
  local n, tag, s
  if b[B_SOLO] > 0 then
    n = tostring(b[B_SOLO])
    s = source(n)
    tag = s and start_tag(s)
  else
    local head = call('ZRANGE', ROOT .. 'bs:' .. id, 0, 0, 'WITHSCORES')
    n, tag = head[1], tonumber(head[2])
    s = n and source(n)
  end
  if not tag or not s then return NOWHERE, 0, NO_REASON end
  if b[B_PAUSE] > now then return IN_WAIT, b[B_PAUSE], WHY_PAUSE end
  if b[B_IN_FLIGHT] >= b[B_CAP] then return NOWHERE, 0, WHY_CAP end
  if b[B_RATE] > 0 and tag ~= REFRESH_TAG then
    local room = b[B_BURST] - min(s[S_COST], b[B_BURST])
    local wake = b[B_TAT] - room / rate_now(b, now)
    if wake > now then return IN_WAIT, wake, WHY_TOKENS end
  end
  return IN_READY, tag, NO_REASON, n
end

local function place_bucket(id, now)
  local b = bucket(id)
  if not b then return end
  local where, at, why = bucket_state(id, b, now)
  if where ~= b[B_WHERE] or at ~= b[B_AT] then
    if where ~= IN_READY and b[B_WHERE] == IN_READY then zput('z', id, false) end
    if where ~= IN_WAIT and b[B_WHERE] == IN_WAIT then zput('w', id, false) end
    if where == IN_READY then zput('z', id, at) end
    if where == IN_WAIT then zput('w', id, at) end
  end
  b[B_WHERE], b[B_AT], b[B_WHY] = where, at, why
end

-- Keeps a shared bucket's own order of its sources; a bucket with one source needs none.
local function place_source(n)
  local s = source(n)
  if not s then return end
  local id = tostring(s[S_BUCKET])
  local b = bucket(id)
  if b and b[B_SOLO] == 0 then
    local tag = start_tag(s)
    if tag then
      call('ZADD', ROOT .. 'bs:' .. id, tag, n)
    else
      call('ZREM', ROOT .. 'bs:' .. id, n)
    end
  end
end

local function charge_tokens(b, cost, now)
  if b[B_RATE] > 0 then b[B_TAT] = max(now, b[B_TAT]) + cost / rate_now(b, now) end
end

local function earliest(key)
  local head = call('ZRANGE', ROOT .. key, 0, 0, 'WITHSCORES')
  return tonumber(head[2])
end

local function soonest(changes)
  local best
  for _, score in pairs(changes) do
    if score and (not best or score < best) then best = score end
  end
  return best
end

local function flush(now)
  for n in pairs(touched_sources) do place_source(n) end
  for id in pairs(touched_buckets) do place_bucket(id, now) end
  for id in pairs(placed) do touched_buckets[id] = true end
  for key, list in pairs(pushes) do
    each_chunk(list, 4000, function(part) call('RPUSH', ROOT .. key, unpack(part)) end)
  end
  flush_hash('r', touched_records, records, encode_record)
  flush_hash('src', touched_sources, sources, function(s) return struct.pack(S_FORMAT, unpack(s)) end)
  flush_hash('bkt', touched_buckets, buckets, function(b) return struct.pack(B_FORMAT, unpack(b)) end)
  local wake = min(soonest(zsets.d) or math.huge, soonest(zsets.w) or math.huge)
  for key, changes in pairs(zsets) do flush_zset(key, changes) end
  pushes, zsets = {}, { x = {}, d = {}, z = {}, w = {} }
  touched_sources, touched_buckets, touched_records, placed = {}, {}, {}, {}
  local summon_early = wake < m[M_NEXT_WAKE]
  call('SET', ROOT .. 'm', struct.pack(M_FORMAT, unpack(m)))
  return summon_early
end
