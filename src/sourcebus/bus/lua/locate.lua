-- The numbers by which sources are known here. They hold for this epoch, until the source is unregistered. Reads only.
-- @include core
-- @arg now
-- @args source
-- @reply epoch slot...
-- @keys m ids
begin(ARGV[1])
local answer = { m[M_EPOCH] }
for i = 2, #ARGV do answer[i] = tonumber(call('HGET', ROOT .. 'ids', ARGV[i]) or -1) end
return answer
