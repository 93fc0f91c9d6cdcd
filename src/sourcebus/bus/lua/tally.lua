-- Counts, over a sliding window of slots of time, how many changes were announced and how many only a listing found. `what`:
-- announced or missed: a change of `ref` was settled; heard: a live signal found `ref` unchanged, which a listing may have
-- found just before it came; anew: what was counted since the last `anew` is no evidence any more.
-- @include core
-- @arg now source slot_ms
-- @args what ref
-- @reply found
-- @keys m ids cov late
local now = begin(ARGV[1])
local n = call('HGET', ROOT .. 'ids', ARGV[2])
if not n then return 0 end
local SLOTS, MOST_LATE = 16, 512
local key, late = ROOT .. 'cov:' .. n, ROOT .. 'late:' .. n
local slot = floor(now / tonumber(ARGV[3]))

local function count(name, by) call('HINCRBY', key, name, by) end

if tonumber(call('HGET', key, 'slot') or '-1') ~= slot then
  for _, name in ipairs(call('HKEYS', key)) do
    local of = tonumber(string.match(name, '^[am](%d+)$') or slot)
    if of > slot or of <= slot - SLOTS then call('HDEL', key, name) end
  end
  call('HSET', key, 'slot', string.format('%d', slot))
end

local heard = false
for i = 4, #ARGV, 2 do
  local what, ref = ARGV[i], ARGV[i + 1]
  if what == 'announced' then
    heard = true
    count(string.format('a%d', slot), 1)
    count('announced', 1)
  elseif what == 'missed' then
    count(string.format('m%d', slot), 1)
    count('missed', 1)
    count('unheard', 1)
    call('ZADD', late, slot, ref)
  elseif what == 'heard' then
    heard = true
    local of = call('ZSCORE', late, ref)
    if of then
      call('ZREM', late, ref)
      if call('HEXISTS', key, 'm' .. of) == 1 then
        count('m' .. of, -1)
        count('a' .. of, 1)
      end
      if tonumber(call('HGET', key, 'missed') or '0') > 0 then
        count('missed', -1)
        count('announced', 1)
      end
    end
  else
    call('HSET', key, 'announced', '0', 'missed', '0', 'unheard', '0')
  end
end
call('ZREMRANGEBYRANK', late, 0, -1 - MOST_LATE)
if heard then
  local last, gap = tonumber(call('HGET', key, 'heard') or '0'), tonumber(call('HGET', key, 'gap') or '0')
  if last > 0 then
    gap = gap == 0 and now - last or gap + 0.2 * (now - last - gap)
    call('HSET', key, 'gap', string.format('%.0f', max(1, gap)))
  end
  call('HSET', key, 'heard', string.format('%.0f', now), 'unheard', '0')
end
save_meta()
return 1
