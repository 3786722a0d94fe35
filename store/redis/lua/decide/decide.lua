-- Decides one step. The twin of store/memory/decide.go.
--
-- Reply of a step, behind OK: state of the lease uint8 (store.LeaseState), then for each op
--
--   plain    what is used as float64, or −1 − used where its own limit refuses
--   strict   refused uint8; the instant at which its bucket stands, at, ends, count, rest, entered, held
--            and, where it refuses, when the first hold lapses that makes room by it, as float64; of a
--            log also the instant of its newest entry, and the instant and the units to wait for (fits in
--            sliding_log.lua)
--
-- FAILED is followed by what has failed, with uint16 length: an error of the script itself.

local LAPSES_AT_ONCE = 64
local STRICT_RESULT = '<Bdddddddd'

-- Finds the buckets, lets what is due on them lapse, and copies their states as they are at now.
-- Returns false if more is due than lapses at once.
local function look(step)
  local works, left = {}, LAPSES_AT_ONCE
  local function find(key, spec)
    if works[key] then return true end
    left = lapse(key, spec, left)
    works[key] = { key = key, spec = spec }
    return left ~= nil
  end
  for _, op in ipairs(step.ops) do
    if op.plain then
      works[op.key] = works[op.key] or { key = op.key, plain = op }
    elseif not find(op.key, op) then
      return nil
    end
  end
  for _, h in ipairs(ends(step)) do
    if not find(h.key, h.spec) then return nil end
    works[h.key].leased = true
  end
  for key, w in next, works do
    if w.plain then
      w.stored = load_counter(key)
      w.count = w.stored
    else
      w.state = copy(load(key, w.spec.algorithm))
      w.now = advance(w.spec, w.state, now)
    end
  end
  return works
end

-- Forms the verdicts: of every op, and the overall one by limit.Tally.
local function judge(step, works, replay)
  local refused, quotas, quotas_spent = step.refused, step.quota_open and 1 or 0, 0
  for _, op in ipairs(step.ops) do
    local w = works[op.key]
    if op.plain then
      if op.kind == GIVE_BACK then
        w.count = less(w.count, op.amount)
      else
        w.count = add(w.count, op.amount)
        op.refused = w.count > op.limit
      end
      op.used = w.count
    elseif op.kind == CHARGE or op.kind == HOLD_OP then
      op.refused = not replay and max(1, op.demand) > op.ceiling - arithmetic(op).used(op, w.state, w.now)
    end
    local refuses = op.refused and not op.shadow
    if op.quota then
      quotas = quotas + 1
      if refuses then quotas_spent = quotas_spent + 1 end
    elseif refuses then
      refused = true
    end
  end
  return (refused or quotas > 0 and quotas == quotas_spent) and not step.shadow
end

-- Applies the strict ops to the states.
local function write(step, works, refuse, opened)
  for _, op in ipairs(step.ops) do
    local w = works[op.key]
    local charges = op.kind == CHARGE or op.kind == HOLD_OP
    local lands = not op.plain and op.amount > 0
    if charges then
      lands = lands and (not refuse or op.count_refusals)
    elseif op.kind == SETTLE_OP then
      lands = lands and not w.leased
    end
    if lands then
      w.wrote = true
      if op.kind == GIVE_BACK then
        arithmetic(op).give_back(op, w.state, w.now, op.amount)
      elseif op.kind == HOLD_OP and opened then
        local holds = opened.holds
        local member = hold(op.key, op, w.state, w.now, op.amount, op.lapse, step.lease.id, #holds, opened.due)
        holds[#holds + 1] = { key = op.key, spec = op, class = op.class, member = member }
      else
        arithmetic(op).charge(op, w.state, w.now, op.amount)
      end
    end
  end
end

local function commit(step, works)
  for key, w in next, works do
    if w.wrote then save(key, w.spec, w.state) end
  end
  for _, op in ipairs(step.ops) do
    local w = works[op.key]
    if op.plain and w.count ~= w.stored then
      call('SET', op.key, string.format('%.0f', w.count), 'PX', time_to_live(op.forget))
      w.stored = w.count
    end
  end
end

local function describe(step, works, state)
  local parts = { char(OK, state) }
  for i, op in ipairs(step.ops) do
    if op.plain then
      parts[i + 1] = pack('<d', op.refused and -1 - op.used or op.used)
    else
      local w = works[op.key]
      local st = w.state
      local first = op.refused and earliest(op.key, op, st, w.now) or 0
      parts[i + 1] = pack(STRICT_RESULT, op.refused and 1 or 0, w.now, st.at, st.ends, st.count, st.rest, st.entered,
        st.held, first)
      if op.algorithm == SLIDING_LOG then
        local log = arithmetic(op)
        local newest, fits, passed = log.newest(st) or 0, 0, 0
        if op.refused and max(1, op.demand) <= op.ceiling then fits, passed = log.fits(op, st, max(1, op.demand)) end
        parts[i + 1] = parts[i + 1] .. pack('<ddd', newest, fits, passed)
      end
    end
  end
  return table.concat(parts)
end

-- Decides a step. Errors are its result codes, and come before its first write.
local function decide_step(step)
  calendars = step.calendars
  local state = recall(step)
  local works = look(step)
  if not works then return char(MORE) end
  local replay = state == IS_REPLAYED
  local refuse = judge(step, works, replay)
  local opened
  local lease = step.lease
  if lease and lease.action == OPEN and not replay and not refuse then
    state = IS_OPENED
    opened = { due = now + lease.lasts, opened = true, opened_by = lease.request, settled_by = NO_REQUEST, holds = {} }
  end
  end_lease(step, works, state)
  if not replay then write(step, works, refuse, opened) end
  commit(step, works)
  if opened then save_lease(lease.key, opened) end
  return describe(step, works, state)
end

-- Decides the step at pos, whatever the others of its batch do. Returns where the next one begins, and
-- behind which key.
local function decide(pos, first, n, flags, current)
  local step
  step, pos = parse_step(pos, first, n, flags)
  local answer
  if not current then
    answer = char(AGAIN, 0)
  else
    local ok, result = protected(decide_step, step)
    answer = result
    if not ok then
      buckets = {} -- what it has changed in them
      if type(result) ~= 'table' or not result.code then
        local problem = tostring(type(result) == 'table' and result.err or result):sub(1, 1000)
        answer = char(FAILED) .. pack('<I2', #problem) .. problem
      elseif result.code == AGAIN then
        answer = char(AGAIN, 1, #result.calendar) .. result.calendar
      else
        answer = char(result.code)
      end
    end
  end
  length = length + 1
  reply[length] = answer
  return pos, first + n + (step.lease and 1 or 0)
end

return decide
