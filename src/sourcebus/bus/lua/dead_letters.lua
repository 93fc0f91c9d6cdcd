-- Lists dead letters, oldest first, after a given id. Reads only.
-- @include core
-- @arg now after most
-- @reply id source field kind signal attempts error since died...
-- @keys m dl dlz names
begin(ARGV[1])
local start = 0
if ARGV[2] ~= '' then
  local rank = call('ZRANK', ROOT .. 'dlz', ARGV[2])
  start = rank and rank + 1 or 0
end
local ids = call('ZRANGE', ROOT .. 'dlz', start, start + tonumber(ARGV[3]) - 1)
local answer = {}
for _, id in ipairs(ids) do
  local packed = call('HGET', ROOT .. 'dl', id)
  if packed then
    local letter = cmsgpack.unpack(packed)
    local name = call('HGET', ROOT .. 'names', owner(letter[1]))
    if name then
      for _, value in ipairs({ id, name, letter[1], letter[2], letter[3], letter[4], letter[5], letter[6], letter[7] }) do
        answer[#answer + 1] = value
      end
    end
  end
end
return answer
