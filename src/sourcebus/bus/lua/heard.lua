-- Which of these deliveries were stored before (keep_ms 0), or: they are stored now, remember them for keep_ms.
-- A source's oldest are forgotten beyond `most`, and all of them when nothing came for keep_ms.
-- @include core
-- @arg now keep_ms most
-- @args source digest
-- @reply seen...
-- @keys m ids hd
local now, keep_ms, most = begin(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local answer, numbers = {}, {}
for i = 4, #ARGV, 2 do
  local name, digest = ARGV[i], ARGV[i + 1]
  local n = numbers[name]
  if n == nil then
    n = call('HGET', ROOT .. 'ids', name)
    numbers[name] = n
  end
  local key = n and ROOT .. 'hd:' .. n
  local until_ms = key and call('ZSCORE', key, digest)
  answer[#answer + 1] = until_ms and tonumber(until_ms) > now and 1 or 0
  if key and keep_ms > 0 then call('ZADD', key, now + keep_ms, digest) end
end
if keep_ms > 0 then
  for _, n in pairs(numbers) do
    if n then
      local key = ROOT .. 'hd:' .. n
      local beyond = call('ZCARD', key) - most
      if beyond > 0 then call('ZPOPMIN', key, min(beyond, 1000)) end
      call('PEXPIRE', key, keep_ms)
    end
  end
end
return answer
