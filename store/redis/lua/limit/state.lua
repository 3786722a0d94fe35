-- A state is a table {at, ends, count, rest, entered, held}: limit.State, where the fields are
-- explained. `ends` is its End, which is a keyword here. A sliding log has more, and a token bucket with live
-- holds: see sliding_log.lua and token_bucket.lua.
--
-- A spec is a table {algorithm, limit, ceiling, window, calendar}; of a policy's limit no more is
-- needed here. The algorithm is one of these codes.

local FIXED_WINDOW, TOKEN_BUCKET, SLIDING_WINDOW, SLIDING_LOG = 0, 1, 2, 3
local CALENDAR, CONCURRENCY, FIRST_USE = 4, 5, 6

-- limit.Add and limit.Less; also what limit calls later.
local function add(a, b)
  local sum = a + b
  return sum < MAX_AMOUNT and sum or MAX_AMOUNT
end

-- What a bucket is called that begins at now: see limit.State.
local function name(now) return now + 1 end

local function less(a, b) return a > b and a - b or 0 end

-- Returns count with charged units in it replaced by actual, without touching what others hold.
local function moved(count, held, charged, actual)
  if actual > charged then return add(count, actual - charged) end
  return count - min(charged - actual, less(count, held))
end
