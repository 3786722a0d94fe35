-- Exact products of two integers below 2^53: the twin of limit/product.go.

local EXACT, NEAR = 9007199254740992, 1125899906842624 -- 2^53, 2^50

-- Returns a·b as the exact sum of two doubles (Dekker's product, with Veltkamp's split).
local function two_product(a, b)
  local product = a * b
  local t = 134217729 * a -- 2^27 + 1
  local a1 = t - (t - a)
  local a2 = a - a1
  t = 134217729 * b
  local b1 = t - (t - b)
  local b2 = b - b1
  return product, ((a1 * b1 - product) + a1 * b2 + a2 * b1) + a2 * b2
end

-- over for quotients and divisors of any size, bit by bit.
local function long_over(a, b, c, d)
  local quotient, rest = 0, 0
  local function add(q, r)
    quotient = quotient + q
    if rest >= d - r then -- rest + r might not be exact
      rest = rest - (d - r)
      quotient = quotient + 1
    else
      rest = rest + r
    end
  end
  local whole, part = floor(a / d), a % d
  for bit = 52, 0, -1 do
    add(quotient, rest)
    local weight = 2 ^ bit
    if b >= weight then
      b = b - weight
      add(whole, part)
    end
    if quotient > MAX_AMOUNT then return MAX_AMOUNT, d - 1 end
  end
  add(floor(c / d), c % d)
  if quotient > MAX_AMOUNT then return MAX_AMOUNT, d - 1 end
  return quotient, rest
end

-- Returns ⌊(a·b + c)/d⌋ and the remainder, for 0 ≤ a, b, c < 2^53 and 0 < d < 2^53. Where the quotient is
-- 2^53 or more, both are pinned at the most that is less.
local function over(a, b, c, d)
  local p = a * b + c
  if p < EXACT then
    local rest = p % d
    return (p - rest) / d, rest
  end
  local q = floor(p / d)
  if q >= NEAR or d >= NEAR or c >= NEAR then return long_over(a, b, c, d) end
  -- q is off by one at most, and what is left over is small and exact.
  local high, low = two_product(a, b)
  local off, off_low = two_product(q, d)
  local rest = (high - off) + (low - off_low + c)
  if rest < 0 then return q - 1, rest + d end
  if rest >= d then return q + 1, rest - d end
  return q, rest
end

-- over, rounded up.
local function over_up(a, b, c, d)
  local q, rest = over(a, b, c, d)
  if rest > 0 then return min(q + 1, MAX_AMOUNT) end
  return q
end
