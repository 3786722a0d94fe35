-- What a step that is not of plain charges only looks like, behind what batch.lua says:
--
--   calendars   uint8: how many; each: uint8 length and name, four bounds as float64
--   lease       if flags say so: action uint8 (store.LeaseAction), lasts float64, request 8 bytes,
--               actual: uint8 how many, each float64 (−1 unknown)
--   ops         each: kind uint8 (store.Kind), flags uint8, amount float64, and
--                 plain   limit, forget as float64
--                 strict  algorithm uint8, demand (of all charges and holds on the bucket), ceiling,
--                         limit, window, lapse as float64, class uint8, calendar uint8 (0: none)

local REFUSED, SHADOW_MODE, QUOTA_OPEN, LEASED = 2, 4, 8, 16
local PLAIN_OP, SHADOW, QUOTA, COUNT_REFUSALS = 1, 2, 4, 8
local CHARGE, GIVE_BACK, HOLD_OP, SETTLE_OP = 0, 1, 2, 3
local OPEN, SETTLE, LAPSE = 0, 1, 2

local function has(flags, bit) return floor(flags / bit) % 2 == 1 end

-- Reads the step of n ops at pos; its first key is the one behind number first. Returns it, and where
-- it ends.
local function parse_step(pos, first, n, flags)
  local step = {
    ops = {}, calendars = {}, refused = has(flags, REFUSED), shadow = has(flags, SHADOW_MODE),
    quota_open = has(flags, QUOTA_OPEN),
  }
  local names = {}
  local count
  count, pos = unpack('<B', steps, pos)
  for i = 1, count do
    local bounds = {}
    names[i], bounds[1], bounds[2], bounds[3], bounds[4], pos = unpack('<Bc0dddd', steps, pos)
    step.calendars[names[i]] = bounds
  end
  if has(flags, LEASED) then
    local lease = { key = KEYS[first + n + 1], actual = {} }
    lease.id, lease.action, lease.lasts, lease.request, count, pos = unpack('<c16Bdc8B', steps, pos)
    for i = 1, count do
      lease.actual[i], pos = unpack('<d', steps, pos)
    end
    step.lease = lease
  end
  for i = 1, n do
    local op = { key = KEYS[first + i] }
    local bits
    op.kind, bits, op.amount, pos = unpack('<BBd', steps, pos)
    if bits > 1 then
      op.shadow, op.quota, op.count_refusals = has(bits, SHADOW), has(bits, QUOTA), has(bits, COUNT_REFUSALS)
    end
    if has(bits, PLAIN_OP) then
      op.plain = true
      op.limit, op.forget, pos = unpack('<dd', steps, pos)
    else
      local calendar
      op.algorithm, op.demand, op.ceiling, op.limit, op.window, op.lapse, op.class, calendar, pos =
        unpack('<BdddddBB', steps, pos)
      op.calendar = names[calendar]
    end
    step.ops[i] = op
  end
  return step, pos
end
