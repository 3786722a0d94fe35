-- Says who delivers events: whoever was the first to ask for it, until that has lapsed or is left to others.
--
-- KEYS[1]  the deliverer: 16 bytes; since when and until when, as float64 (µs)
-- ARGV[1]  who asks, 16 bytes
-- ARGV[2]  for how long from now on, in µs; 0 to leave it to others
-- ARGV[3]  now in µs; empty in production, where the clock of Redis counts. Only tests set it.
--
-- Reply    1 if it is the one who asks, 0 if it is another one, −1 if the key holds something else

local TOLERANCE = 60000000 -- limit.Tolerance
local DELIVERER, DELIVERER_SIZE = '<c16dd', 32

local who, lasts, now = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local longer = now and 3600000 or 0 -- a test's clock may stand still while the time to live runs
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end

local raw = redis.call('GET', KEYS[1])
if raw then
  if #raw ~= DELIVERER_SIZE then return -1 end
  local other, since, till = struct.unpack(DELIVERER, raw)
  -- One who begins later than now is of a clock that was ahead.
  if other ~= who and now < till and since <= now + TOLERANCE then return 0 end
end
if lasts > 0 then
  local left = string.format('%.0f', math.ceil(lasts / 1000) + longer)
  redis.call('SET', KEYS[1], struct.pack(DELIVERER, who, now, now + lasts), 'PX', left)
elseif raw then
  redis.call('DEL', KEYS[1])
end
return 1
