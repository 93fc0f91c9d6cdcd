-- What the bus knows of single objects. Reads only.
-- @include core
-- @arg now
-- @args source key
-- @reply record dead_letter_id...
-- @keys m ids r dlk
begin(ARGV[1])
local answer = {}
for i = 2, #ARGV, 2 do
  local n = call('HGET', ROOT .. 'ids', ARGV[i])
  local field = n and (n .. ':' .. ARGV[i + 1])
  answer[#answer + 1] = field and call('HGET', ROOT .. 'r', field) or ''
  answer[#answer + 1] = field and call('HGET', ROOT .. 'dlk', field) or ''
end
return answer
