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
-- CLAIM is answered by uint16 how many bytes follow: the state of the lease, when it is due as float64, the
-- transaction that made its directory, 16 bytes, and its shards, uint16 each.
--
-- FAILED is followed by what has failed, with uint16 length: an error of the script itself.

local LAPSES_AT_ONCE = 64
local STRICT_RESULT = '<Bdddddddd'

-- The buckets of a step, each once. There are few, so that it is found soonest one by one.
local buckets, buckets_count = {}, 0

local function find(key)
  for i = 1, buckets_count do
    if buckets[i].key == key then return buckets[i] end
  end
end

local function keep(b)
  buckets_count = buckets_count + 1
  buckets[buckets_count] = b
  return b
end

-- Finds the buckets of the ops and of the lease's holds, lets what is due on them lapse, and brings them
-- to now. Returns false if more is due than lapses at once.
local function look(step)
  local left, ops = LAPSES_AT_ONCE, step.ops
  for i = 1, step.n do
    local op = ops[i]
    local b = find(op.key)
    if not b then
      if op.plain then
        b = keep(new_bucket())
        b.key, b.spec, b.stored, b.wrote = op.key, nil, load_counter(op.key), false
        b.count = b.stored
      else
        b = keep(read(op.key, op))
        if b.live > 0 then
          left = lapse(b, left)
          if not left then return false end
        end
        if step.spans then read_pending(b) end
      end
    end
    op.bucket = b
  end
  local holds = ends(step)
  for i = 1, #holds do
    local h = holds[i]
    local b = find(h.key)
    if not b then
      if step.spans then
        -- The step could not name these keys: see before anything is written that they are here. A node that
        -- takes a shard in does not say so itself of keys that have not come yet.
        if step.asked then error({ code = ELSEWHERE }) end
        local there = pcall('EXISTS', h.key .. '#holds')
        if type(there) == 'table' then unreadable(there) end
      end
      b = keep(read(h.key, h.spec))
      if step.spans then read_pending(b) end
      left = lapse(b, left)
      if not left then return false end
    end
    b.leased = true
    h.bucket = b
  end
  for i = 1, buckets_count do
    local b = buckets[i]
    if b.spec then
      local before = b.at
      b.now = advance(b.spec, b, now)
      -- The clock has stepped back. Kept where it was, the bucket would follow it at each look anew.
      b.wrote = b.found and b.at < before
    end
  end
  return true
end

-- Forms the verdicts: of every op, and the overall one by limit.Tally.
local function judge(step, replay)
  local refused, quotas, quotas_spent = step.refused, step.quota_open and 1 or 0, 0
  for i = 1, step.n do
    local op = step.ops[i]
    local b = op.bucket
    if op.plain then
      if op.kind == GIVE_BACK then
        b.count = less(b.count, op.amount)
      else
        b.count = add(b.count, op.amount)
        op.refused = b.count > op.limit
      end
      op.used = b.count
    elseif not replay and (op.kind == CHARGE or op.kind == HOLD_OP) then
      local amount = op.demand > 0 and op.demand or 1
      op.refused = amount > op.ceiling - b.arithmetic.used(op, b, b.now) - b.pending
    end
    local refuses = op.refused and not has(op.flags, SHADOW)
    if op.flags > 1 and has(op.flags, QUOTA) then
      quotas = quotas + 1
      if refuses then quotas_spent = quotas_spent + 1 end
    elseif refuses then
      refused = true
    end
  end
  return (refused or quotas > 0 and quotas == quotas_spent) and not step.shadow
end

-- Returns by bucket what the step would charge and hold there.
local function asks(step)
  local amounts = {}
  for i = 1, step.n do
    local op = step.ops[i]
    -- A charge of places counts nothing.
    if not op.plain and (op.kind == HOLD_OP or op.kind == CHARGE and op.algorithm ~= CONCURRENCY) and op.amount > 0 then
      amounts[op.bucket] = (amounts[op.bucket] or 0) + op.amount
    end
  end
  return amounts
end

-- Ends the promises of the step. Where it needs them and one has lapsed, it is too late: nothing is written.
local function redeem_all(step, needed)
  local amounts, found = asks(step), {}
  for b in pairs(amounts) do
    found[b] = promised(b, step.transaction)
    if needed and not found[b] then error({ code = LATE }) end
  end
  for b, amount in pairs(found) do redeem(b, step.transaction, amount) end
end

-- Says whether a strict op is written, given the verdict.
local function lands(op, refuse, replay)
  if op.plain or op.amount == 0 then return false end
  if op.kind == GIVE_BACK then return op.bucket.found or op.bucket.wrote end
  if replay then return false end
  if op.kind == CHARGE or op.kind == HOLD_OP then return not refuse or has(op.flags, COUNT_REFUSALS) end
  if op.kind == SETTLE_OP then return not op.bucket.leased end
  return true
end

-- Applies the strict ops to the buckets.
local function write(step, refuse, replay, opened)
  for i = 1, step.n do
    local op = step.ops[i]
    if lands(op, refuse, replay) then
      local b = op.bucket
      b.wrote = true
      if op.kind == GIVE_BACK then
        b.arithmetic.give_back(op, b, b.now, op.amount)
      elseif op.kind == HOLD_OP and opened then
        local holds = opened.holds
        local member = hold(b, op, step.lease.id, #holds, opened.due)
        holds[#holds + 1] = { key = op.key, spec = op, class = op.class, member = member }
      else
        b.arithmetic.charge(op, b, b.now, op.amount)
      end
    end
  end
end

local function commit(step)
  for i = 1, buckets_count do
    if buckets[i].wrote then save(buckets[i]) end
  end
  for i = 1, step.n do
    local op = step.ops[i]
    local b = op.bucket
    if op.plain and b.count ~= b.stored then
      call('SET', op.key, string.format('%.0f', b.count), 'PX', time_to_live(op.ceiling))
      b.stored = b.count
    end
  end
end

local function describe(step, state)
  length = length + 1
  reply[length] = char(OK, state)
  for i = 1, buckets_count do
    local b = buckets[i]
    if b.spec and b.pending > 0 then -- others' promises are held
      b.count, b.held = add(b.count, b.pending), add(b.held, b.pending)
    end
  end
  for i = 1, step.n do
    local op = step.ops[i]
    local b = op.bucket
    length = length + 1
    if op.plain then
      reply[length] = pack('<d', op.refused and -1 - op.used or op.used)
    else
      reply[length] = pack(STRICT_RESULT, op.refused and 1 or 0, b.now, b.at, b.ends, b.count, b.rest, b.entered, b.held,
        op.refused and earliest(b) or 0)
      if op.algorithm == SLIDING_LOG then
        local amount, fits, passed = max(1, op.demand), 0, 0
        if op.refused and amount <= op.ceiling then fits, passed = b.arithmetic.fits(op, b, amount) end
        length = length + 1
        reply[length] = pack('<ddd', b.arithmetic.newest(b) or b.pending > 0 and b.now or 0, fits, passed)
      end
    end
  end
end

-- Judges the step and has promised to it what it needs, if no limit of this shard refuses.
local function prepare(step, replay)
  redeem_all(step, false) -- those of an attempt that took the lease for a new one
  local refuse = judge(step, replay)
  if not refuse and not replay then
    for b, amount in pairs(asks(step)) do promise(b, step.transaction, amount) end
  end
  commit(step)
end

local function answer_claim(step)
  local state, l = claim(step)
  local content = char(state) .. pack('<d', l.due) .. l.made_by .. l.shards
  length = length + 1
  reply[length] = char(OK) .. pack('<I2', #content) .. content
end

-- Decides a step, and answers it. Errors are its result codes, and come before its first write.
local function decide_step(step)
  local phase = step.phase
  taken, buckets_count = 0, 0
  if phase == CLAIM then return answer_claim(step) end
  if phase == DISCLAIM then
    disclaim(step)
    return describe(step, NONE)
  end
  calendars = step.calendars
  local state = recall(step)
  if not look(step) then error({ code = MORE }) end
  local replay = state == IS_REPLAYED or phase >= REPEAT
  if phase == PREPARE then
    prepare(step, replay)
    return describe(step, state)
  end
  local refuse
  if phase == ADMIT or phase == REFUSE then
    refuse = phase == REFUSE
  else
    refuse = judge(step, replay)
  end
  if phase ~= WHOLE then redeem_all(step, phase == ADMIT and not replay) end
  local opened
  local lease = step.lease
  if lease and lease.action == OPEN and not replay and not refuse then
    state = IS_OPENED
    opened = { due = now + lease.lasts, opened = true, opened_by = lease.request, settled_by = NO_REQUEST, holds = {}, made_by = lease.made_by }
  end
  if phase ~= FORGET then
    end_lease(step, state)
    write(step, refuse, replay, opened)
  end
  commit(step)
  if opened then save_lease(lease.key, opened) end
  describe(step, state)
end

local function answer_error(problem)
  local code = type(problem) == 'table' and problem.code
  if not code then
    problem = tostring(type(problem) == 'table' and problem.err or problem):sub(1, 1000)
    return char(FAILED) .. pack('<I2', #problem) .. problem
  end
  if code == AGAIN then return char(AGAIN, 1, #problem.calendar) .. problem.calendar end
  return char(code)
end

-- Decides the step at pos, whatever becomes of the others of its batch. Returns where the next one
-- begins, and behind which key.
local function decide(pos, first, n, flags, current)
  local step
  step, pos = parse_step(pos, first, n, flags)
  local began = length
  if current then
    local ok, problem = protected(decide_step, step)
    if not ok then
      for i = began + 1, length do reply[i] = nil end
      length = began + 1
      reply[length] = answer_error(problem)
    end
  else
    length = length + 1
    reply[length] = char(AGAIN, 0)
  end
  return pos, first + n + (step.lease and 1 or 0)
end

return decide
