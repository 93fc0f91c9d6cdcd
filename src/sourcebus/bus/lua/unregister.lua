-- Forgets a source. Its queue is taken down in slices: call again until `left` is 0.
-- @include core place queue settle
-- @arg now source most
-- @reply found left
-- @keys m ids names n src bkt bids bs pl r x d z w q0 q1 q2 gone dl dlk dlz
local now = begin(ARGV[1])
local n = call('HGET', ROOT .. 'ids', ARGV[2])
local found = n and 1 or 0
if n then
  local s = source(n)
  local id = bucket_id(n, s)
  call('HDEL', ROOT .. 'ids', ARGV[2])
  call('HDEL', ROOT .. 'names', n)
  call('HDEL', ROOT .. 'src', n)
  call('HDEL', ROOT .. 'n', n)
  call('ZREM', ROOT .. 'pl', n)
  sources[n] = false
  if id == n then
    call('ZREM', ROOT .. 'z', n)
    call('ZREM', ROOT .. 'w', n)
  else
    local b = bucket(id)
    b[B_IN_FLIGHT] = b[B_IN_FLIGHT] - s[S_IN_FLIGHT]
    call('ZREM', ROOT .. 'bs:' .. id, n)
    touch_bucket(id, b)
  end
  call('SADD', ROOT .. 'gone', n)
end
local left = tonumber(ARGV[3])
local gone = call('SRANDMEMBER', ROOT .. 'gone')
if gone then
  for lane = BACKFILL, MANUAL do
    while left > 0 do
      local fields = call('LPOP', ROOT .. lane_key(lane, gone), min(left, 500))
      if not fields then break end
      load_records(fields)
      for _, field in ipairs(fields) do drop(field) end
      left = left - #fields
    end
  end
  local cursor = '0'
  repeat -- dead letters are few, so they go in one slice
    local page = call('HSCAN', ROOT .. 'dlk', cursor, 'MATCH', gone .. ':*', 'COUNT', 1000)
    cursor = page[1]
    for i = 1, #page[2], 2 do
      call('HDEL', ROOT .. 'dlk', page[2][i])
      call('HDEL', ROOT .. 'dl', page[2][i + 1])
      call('ZREM', ROOT .. 'dlz', page[2][i + 1])
    end
  until cursor == '0'
  if left > 0 then call('SREM', ROOT .. 'gone', gone) end
end
flush(now)
return { found, call('SCARD', ROOT .. 'gone') }
