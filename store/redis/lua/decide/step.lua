-- What a step that is not of plain charges only looks like, behind what batch.lua says:
--
--   ASKED among the flags: the node is asked though it has not taken the whole shard in yet (ASK)
--   span        if flags say so, which is in a cluster: phase uint8 (see below), transaction 16 bytes
--   calendars   uint16: how many; each: uint8 length and name, four bounds as float64
--   lease       if flags say so: action uint8 (store.LeaseAction), lasts float64 (of a settlement that spans
--               shards: until the lease is due, or was), request 8 bytes,
--               actual: uint16 how many, each float64 (−1 unknown); where the step spans shards, but not of
--               CLAIM and DISCLAIM, the transaction that made the directory, 16 bytes
--   shards      of the phases CLAIM and DISCLAIM: uint16 how many, each uint16
--   ops         each: kind uint8 (store.Kind), flags uint8, algorithm, class uint8, calendar uint16 (0: none),
--               amount, limit, ceiling, demand (of all charges and holds on the bucket), window, lapse
--               as float64; of a plain op only kind, amount and limit count, and in the place of the
--               ceiling when its counter may go (µs)

local REFUSED, SHADOW_MODE, QUOTA_OPEN, LEASED, SPAN, ASKED = 2, 4, 8, 16, 32, 64
local PLAIN_OP, SHADOW, QUOTA, COUNT_REFUSALS, REFUSED_OP = 1, 2, 4, 8, 16

-- The phases of a step that spans shards (span.go); of one that does not, WHOLE.
local WHOLE, PREPARE, ADMIT, REFUSE, REPEAT, FORGET, CLAIM, DISCLAIM = 0, 1, 2, 3, 4, 5, 6, 7
local CHARGE, GIVE_BACK, HOLD_OP, SETTLE_OP = 0, 1, 2, 3
local OPEN, SETTLE = 0, 1 -- and 2 to let it lapse

local OP = '<BBBBI2dddddd'
local NOTHING = {}

local function has(flags, bit) return flags % (2 * bit) >= bit end

local ops_of = {} -- the ops of a step, used again by the next one

-- Reads the step of n ops at pos; its first key is the one behind number first. Returns it, and where
-- it ends.
local function parse_step(pos, first, n, flags)
  local step = {
    n = n, ops = ops_of, calendars = NOTHING, lease = nil, refused = has(flags, REFUSED),
    shadow = has(flags, SHADOW_MODE), quota_open = has(flags, QUOTA_OPEN),
    spans = has(flags, SPAN), asked = has(flags, ASKED), phase = WHOLE, transaction = nil, shards = nil,
  }
  if step.spans then step.phase, step.transaction, pos = unpack('<Bc16', steps, pos) end
  local names, count = NOTHING, nil
  count, pos = unpack('<I2', steps, pos)
  if count > 0 then
    names, step.calendars = {}, {}
    for i = 1, count do
      local bounds = {}
      names[i], bounds[1], bounds[2], bounds[3], bounds[4], pos = unpack('<Bc0dddd', steps, pos)
      step.calendars[names[i]] = bounds
    end
  end
  if has(flags, LEASED) then
    local lease = { key = KEYS[first + n + 1], actual = {} }
    lease.id, lease.action, lease.lasts, lease.request, count, pos = unpack('<c16Bdc8I2', steps, pos)
    for i = 1, count do
      lease.actual[i], pos = unpack('<d', steps, pos)
    end
    if step.spans and step.phase < CLAIM then lease.made_by, pos = unpack('<c16', steps, pos) end
    step.lease = lease
  end
  if step.phase >= CLAIM then
    count, pos = unpack('<I2', steps, pos)
    step.shards = steps:sub(pos, pos + 2 * count - 1)
    pos = pos + 2 * count
  end
  for i = 1, n do
    local op = ops_of[i]
    if not op then
      op = {}
      ops_of[i] = op
    end
    local calendar
    op.kind, op.flags, op.algorithm, op.class, calendar, op.amount, op.limit, op.ceiling, op.demand, op.window,
      op.lapse, pos = unpack(OP, steps, pos)
    op.key, op.calendar, op.plain, op.refused = KEYS[first + i], names[calendar], op.flags % 2 == PLAIN_OP, op.flags >= REFUSED_OP
  end
  return step, pos
end
