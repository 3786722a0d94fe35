-- What a step that is not of plain charges only looks like, behind what batch.lua says:
--
--   ASKED among the flags: the node is asked though it has not taken the whole shard in yet (ASK)
--   span        if flags say so, which is in a cluster: phase uint8 (see below), transaction 16 bytes
--   calendars   uint16: how many; each: uint8 length and name, four bounds as float64
--   lease       if flags say so: action uint8 (store.LeaseAction), lasts float64 (of an end that spans
--               shards: until the lease is due, or was), request 8 bytes,
--               actual: uint16 how many, each float64 (−1 unknown); note: uint16 length (0: leave the one before)
--               and the bytes; where the step spans shards, but not of
--               CLAIM and DISCLAIM, the transaction that made the directory, 16 bytes
--   shards      of the phases CLAIM and DISCLAIM: uint16 how many, each uint16
--   ops         each: uint8 how many bytes follow: kind uint8 (store.Kind), flags uint8, algorithm, class
--               uint8, amount, limit, ceiling, demand (of all charges and holds on the bucket), window, lapse (of a
--               depletion its wait) as float64; if its flags say so, how many thresholds uint8 and each as float64;
--               name of the calendar.
--               Of a plain op only kind, amount and limit count, and in the place of the ceiling when its counter
--               may go (µs). Behind an op with thresholds is its label, with uint16 length
--   rows        if flags say so: see rows.lua

local REFUSED, SHADOW_MODE, QUOTA_OPEN, LEASED, SPAN, ASKED, REPORTS = 2, 4, 8, 16, 32, 64, 128
local PLAIN_OP, SHADOW, QUOTA, COUNT_REFUSALS, REFUSED_OP, TELLS = 1, 2, 4, 8, 16, 32

-- The phases of a step that spans shards (span.go); of one that does not, WHOLE.
local WHOLE, PREPARE, ADMIT, REFUSE, REPEAT, FORGET, CLAIM, DISCLAIM = 0, 1, 2, 3, 4, 5, 6, 7
local CHARGE, GIVE_BACK, HOLD_OP, SETTLE_OP, DEPLETE = 0, 1, 2, 3, 5
local OPEN, SETTLE, LOOK, RENEW = 0, 1, 3, 4 -- and 2 to let it lapse

-- What becomes of a step's lease: store.LeaseState.
local NONE, IS_OPENED, IS_SETTLED, IS_CORRECTED, IS_LAPSED, IS_REPLAYED, IS_UNKNOWN, IS_RENEWED = 0, 1, 2, 3, 4, 5, 6, 7

local OP = '<BBBBdddddd'
local NOTHING = {}

local function has(flags, bit) return flags % (2 * bit) >= bit end

-- The ops of the batch, by what is said of them: in most steps the same limits are asked, of other buckets.
local known_ops = {}

local function parse_op(raw)
  local op, flags, rest = {}, nil, nil
  op.kind, flags, op.algorithm, op.class, op.amount, op.limit, op.ceiling, op.demand, op.window, op.lapse, rest =
    unpack(OP, raw)
  if has(flags, TELLS) then
    local n = byte(raw, rest)
    op.thresholds = { unpack('<' .. ('d'):rep(n), raw, rest + 1) }
    rest = table.remove(op.thresholds) -- which is where they end
  end
  op.calendar = raw:sub(rest)
  op.plain, op.shadow, op.quota = has(flags, PLAIN_OP), has(flags, SHADOW), has(flags, QUOTA)
  op.counts_refusals, op.refused = has(flags, COUNT_REFUSALS), has(flags, REFUSED_OP)
  op.judged = op.kind == CHARGE or op.kind == HOLD_OP
  op.wants = max(1, op.demand)
  if op.kind == DEPLETE then op.wait = op.lapse end
  if not op.plain then op.arithmetic = arithmetic(op.algorithm) end
  known_ops[raw] = op
  return op
end

-- A step, used again by the next one. Op i of n is ops[i]. It is about the key i places behind the first,
-- which is that of buckets[i], and is refused if refused[i]; of a plain one used[i] is what is used then, and of one
-- with thresholds labels[i] is where among the steps its label is.
local spare_step = { ops = {}, buckets = {}, refused = {}, used = {}, labels = {} }

-- Reads the step of n ops at pos; its first key is the one behind number first. Returns it, and where
-- it ends.
local function parse_step(pos, first, n, flags)
  local step = spare_step
  step.n, step.first, step.calendars, step.lease = n, first, NOTHING, nil
  step.refuses, step.shadow, step.quota_open = has(flags, REFUSED), has(flags, SHADOW_MODE), has(flags, QUOTA_OPEN)
  step.spans, step.asked = has(flags, SPAN), has(flags, ASKED)
  step.phase, step.transaction, step.shards = WHOLE, nil, nil
  local count
  if step.spans then step.phase, step.transaction, pos = unpack('<Bc16', steps, pos) end
  count, pos = unpack('<I2', steps, pos)
  if count > 0 then
    step.calendars = {}
    for _ = 1, count do
      local calendar, bounds = nil, {}
      calendar, bounds[1], bounds[2], bounds[3], bounds[4], pos = unpack('<Bc0dddd', steps, pos)
      step.calendars[calendar] = bounds
    end
  end
  if has(flags, LEASED) then
    local lease = { key = KEYS[first + n + 1], actual = {} }
    lease.id, lease.action, lease.lasts, lease.request, count, pos = unpack('<c16Bdc8I2', steps, pos)
    for i = 1, count do
      lease.actual[i], pos = unpack('<d', steps, pos)
    end
    count, pos = unpack('<I2', steps, pos)
    if count > 0 then
      lease.note = sub(steps, pos, pos + count - 1)
      pos = pos + count
    end
    if step.spans and step.phase < CLAIM then lease.made_by, pos = unpack('<c16', steps, pos) end
    step.lease = lease
  end
  if step.phase >= CLAIM then
    count, pos = unpack('<I2', steps, pos)
    step.shards = steps:sub(pos, pos + 2 * count - 1)
    pos = pos + 2 * count
  end
  local ops, refused, plain, gives_back, tells = step.ops, step.refused, false, false, false
  for i = 1, n do
    local last = pos + byte(steps, pos)
    local raw = sub(steps, pos + 1, last)
    local op = known_ops[raw] or parse_op(raw)
    ops[i], refused[i] = op, op.refused
    plain, gives_back = plain or op.plain, gives_back or op.kind == GIVE_BACK
    pos = last + 1
    if op.thresholds then
      tells, step.labels[i] = true, pos
      pos = pos + 2 + byte(steps, pos) + 256 * byte(steps, pos + 1)
    end
  end
  step.plain, step.gives_back, step.tells = plain, gives_back, tells
  return step, pos
end
