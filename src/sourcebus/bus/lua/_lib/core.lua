-- Loading, caching and flushing. A script reads and computes first; `flush` writes everything at the end, so an error
-- in between leaves the data as it was (lists are the one exception: taking from them is a write, see queue.lua).
local call = redis.call
local floor, max, min = math.floor, math.max, math.min
local ROOT = KEYS[1]

local READY, DELAYED, IN_FLIGHT, COOLING = 1, 2, 3, 4
local BACKFILL, LIVE, MANUAL = 0, 1, 2
local SOLO = 1 -- flag: lost its lease in a crash, so it is claimed alone
local KIND_SCAN = 3
local LANE = { [0] = LIVE, LIVE, LIVE, MANUAL, BACKFILL } -- by signal: webhook poll watch manual reconcile

local m

-- Server time never goes back, and after a forward jump that was a mistake it runs at half speed until true again.
local function begin(now_arg)
  local raw = tonumber(now_arg)
  if raw <= 0 then
    local t = call('TIME')
    raw = t[1] * 1000 + t[2] / 1000
  end
  local packed = call('GET', ROOT .. 'm')
  if packed then
    m = { struct.unpack(M_FORMAT, packed) }
  else
    m = {}
    for i = 1, M_SIZE do m[i] = 0 end
    m[M_EPOCH] = raw
    m[M_FENCE] = floor(raw) * 1024 -- above every fence of an earlier life of this bus
  end
  local passed = max(0, raw - m[M_RAW])
  m[M_RAW] = raw
  m[M_CLOCK] = (m[M_CLOCK] + passed <= raw) and raw or max(raw, m[M_CLOCK] + passed / 2)
  return m[M_CLOCK]
end

-- Redis's Lua unpacks at most some 7,900 values at once; all multi-value calls go through here in chunks.
local function each_chunk(list, size, fn)
  local n = #list
  if n == 0 then return end
  if n <= size then return fn(list) end
  for i = 1, n, size do
    local part = {}
    for j = i, min(i + size - 1, n) do part[#part + 1] = list[j] end
    fn(part)
  end
end

local function fetch(key, fields, into, decode)
  each_chunk(fields, 4000, function(part)
    local values = call('HMGET', ROOT .. key, unpack(part))
    for i = 1, #part do into[part[i]] = values[i] and decode(values[i]) or false end
  end)
end

local function decode_source(raw) return { struct.unpack(S_FORMAT, raw) } end
local function decode_bucket(raw) return { struct.unpack(B_FORMAT, raw) } end

-- Tables are built whole: one that grows field by field is rehashed at every step, and this is the hottest path.
local function new_record(state, lane, kind, signal, attempts, flags, since, observed, at, tail)
  return { state, lane, kind, signal, attempts, flags, since, observed, at, 0, 0, 0, 0, tail }
end

local function decode_record(raw)
  local state, lane, kind, signal, attempts, flags, since, observed, at, tail = struct.unpack(R_FORMAT, raw)
  if state ~= IN_FLIGHT then
    return new_record(state, lane, kind, signal, attempts, flags, since, observed, at, string.sub(raw, tail))
  end
  local claimed, est, cost, dirty, rest = struct.unpack(X_FORMAT, raw, tail)
  return { state, lane, kind, signal, attempts, flags, since, observed, at, claimed, est, cost, dirty, string.sub(raw, rest) }
end

local function encode_record(r)
  local head = struct.pack(R_FORMAT, r[R_STATE], r[R_LANE], r[R_KIND], r[R_SIGNAL], r[R_ATTEMPTS], r[R_FLAGS],
    r[R_SINCE], r[R_OBSERVED], r[R_AT])
  if r[R_STATE] == IN_FLIGHT then
    head = head .. struct.pack(X_FORMAT, r[X_CLAIMED], r[X_EST], r[X_COST], r[X_DIRTY])
  end
  return head .. r[R_TAIL]
end

local sources, buckets, records = {}, {}, {} -- caches; false = looked up and absent
local touched_sources, touched_buckets, touched_records = {}, {}, {} -- to be placed (the first two) and written
local placed = {} -- buckets placed already and only to be written

local function one(key, field, cache, decode)
  local value = cache[field]
  if value == nil then
    local raw = call('HGET', ROOT .. key, field)
    value = raw and decode(raw) or false
    cache[field] = value
  end
  return value
end

local function source(n) return one('src', n, sources, decode_source) end
local function bucket(b) return one('bkt', b, buckets, decode_bucket) end
local function record(field) return one('r', field, records, decode_record) end

local function missing(list, cache)
  local out, seen = {}, {}
  for _, key in ipairs(list) do
    if cache[key] == nil and not seen[key] then
      seen[key] = true
      out[#out + 1] = key
    end
  end
  return out
end

local function load_records(fields) fetch('r', missing(fields, records), records, decode_record) end

-- Loads sources and the buckets they draw from: two round trips inside the server, however many there are.
local function load_sources(ids)
  fetch('src', missing(ids, sources), sources, decode_source)
  local wanted = {}
  for _, n in ipairs(ids) do
    if sources[n] then wanted[#wanted + 1] = tostring(sources[n][S_BUCKET]) end
  end
  fetch('bkt', missing(wanted, buckets), buckets, decode_bucket)
end

local function touch(n)
  touched_sources[n] = true
  touched_buckets[tostring(sources[n][S_BUCKET])] = true
end

-- `encoded`, where the caller has made it already, spares making it again.
local function put(field, r, encoded)
  records[field] = r
  touched_records[field] = encoded or true
end

local function drop(field)
  records[field] = false
  touched_records[field] = true
end

local function owner(field) return string.sub(field, 1, string.find(field, ':', 1, true) - 1) end

-- Sorted sets: the last word per member wins, `false` removes.
local zsets = { x = {}, d = {}, z = {}, w = {} }
local function zput(key, member, score) zsets[key][member] = score end

local pushes = {} -- list key → values for RPUSH
local function push(key, value)
  local list = pushes[key]
  if not list then
    list = {}
    pushes[key] = list
  end
  list[#list + 1] = value
end

local function flush_zset(key, changes)
  local add, remove = {}, {}
  for member, score in pairs(changes) do
    if score then
      add[#add + 1] = score -- Redis writes Lua numbers with 17 digits
      add[#add + 1] = member
    else
      remove[#remove + 1] = member
    end
  end
  each_chunk(add, 4000, function(part) call('ZADD', ROOT .. key, unpack(part)) end)
  each_chunk(remove, 4000, function(part) call('ZREM', ROOT .. key, unpack(part)) end)
end

local function flush_hash(key, touched, cache, encode)
  local set, del = {}, {}
  for field, ready_made in pairs(touched) do
    local value = cache[field]
    if value then
      set[#set + 1] = field
      set[#set + 1] = ready_made ~= true and ready_made or encode(value)
    else
      del[#del + 1] = field
    end
  end
  each_chunk(set, 4000, function(part) call('HSET', ROOT .. key, unpack(part)) end)
  each_chunk(del, 4000, function(part) call('HDEL', ROOT .. key, unpack(part)) end)
end
