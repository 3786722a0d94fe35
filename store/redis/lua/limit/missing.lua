-- The twin of limit.Spec.Missing: how much a depletion records of a bucket, so that no more than its amount
-- remains and, of a token bucket, the next unit fits no sooner than it says. What is promised counts as used.
local LONGEST_WAIT = 3600000000 -- limit.LongestWait

local function missing(op, b)
  local amount = max(0, op.ceiling - b.arithmetic.used(op, b, b.now) - b.pending - op.amount)
  local delay = min(add(now, op.wait) - b.now, LONGEST_WAIT)
  if op.algorithm ~= TOKEN_BUCKET or op.ceiling == 0 or delay <= 0 then return amount end
  local excess, rest = over(delay - 1, op.limit, 1, op.window)
  if rest > b.rest then excess = add(excess, 1) end
  return max(amount, less(add(op.ceiling - 1, excess), b.count + b.pending))
end
