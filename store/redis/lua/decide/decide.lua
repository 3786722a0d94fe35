-- Decides one step. The twin of store/memory/decide.go.
--
-- Reply of a step, behind OK: where it has a lease, the note that was found there, with uint16 length; state of the
-- lease uint8 (store.LeaseState); then for each op
--
--   plain    what is used as float64, or −1 − used where its own limit refuses
--   strict   refused uint8; the instant at which its bucket stands and, where it refuses, when the first
--            hold lapses that makes room by it, as float64; the bucket without holds (bucket.lua); of a log
--            also the instant of its newest entry, and the instant and the units to wait for (fits in
--            sliding_log.lua)
--
-- CLAIM is answered by uint16 how many bytes follow: the state of the lease, when it is due as float64, the
-- transaction that made its directory, 16 bytes, the note with uint16 length, and its shards, uint16 each.
--
-- FAILED is followed by what has failed, with uint16 length: an error of the script itself.

local LAPSES_AT_ONCE = 64
local VERDICT = '<Bdd'
local ADMITTED = pack(VERDICT, 0, now, 0)

-- What only few steps need: those with leases or on buckets with live holds, those that span shards, and those that
-- deplete a bucket.
local of_leases
local function reserving()
  of_leases = of_leases or leases()
  return of_leases
end

local of_usage
local function reporting()
  of_usage = of_usage or usage()
  return of_usage
end

local of_events
local function telling()
  of_events = of_events or events()
  return of_events
end

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

-- Reads a bucket, lets what is due on it lapse, at most `left` holds, and brings it to now. Returns it, and
-- how many more may lapse; nil if more is due.
local function bring(step, key, spec, left)
  local b = keep(read(key, spec))
  if b.live > 0 and b.next <= now then left = reserving().lapse(b, left) end
  if step.spans then reserving().read_pending(b) end
  if step.gives_back and b.found then -- what may be forgotten is as good as none
    b.found = b.live > 0 or now < add(b.arithmetic.idle(spec, b), TOLERANCE)
  end
  local before = b.at
  b.now = advance(spec, b, now)
  -- The clock has stepped back. Kept where it was, the bucket would follow it at each look anew.
  b.wrote = b.found and b.at < before
  return b, left
end

-- Finds the buckets of the ops and of the lease's holds, as they are now. Returns false if more is due on
-- them than lapses at once.
local function look(step)
  local left, ops, of_op = LAPSES_AT_ONCE, step.ops, step.buckets
  for i = 1, step.n do
    local op, key = ops[i], KEYS[step.first + i]
    local b = find(key)
    if b then
      -- it was named before
    elseif op.plain then
      b = keep(new_bucket())
      b.key, b.spec, b.stored, b.wrote = key, nil, load_counter(key), false
      b.count = b.stored
    else
      b, left = bring(step, key, op, left)
      if not left then return false end
    end
    of_op[i] = b
  end
  if not step.lease then return true end
  local holds = reserving().ends(step)
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
      b, left = bring(step, h.key, h.spec, left)
      if not left then return false end
    end
    b.leased = true
    h.bucket = b
  end
  return true
end

-- Forms the verdicts: of every op, and the overall one by limit.Tally.
local function judge(step, replay)
  local ops, of_op, refused = step.ops, step.buckets, step.refused
  local refuses, quotas, quotas_spent = step.refuses, step.quota_open and 1 or 0, 0
  for i = 1, step.n do
    local op, b = ops[i], of_op[i]
    if op.plain then
      if op.kind == GIVE_BACK then
        b.count = less(b.count, op.amount)
      else
        b.count = add(b.count, op.amount)
        refused[i] = b.count > op.limit
      end
      step.used[i] = b.count
    elseif op.judged and not replay then
      refused[i] = op.wants > op.ceiling - b.arithmetic.used(op, b, b.now) - b.pending
    end
    local counts = refused[i] and not op.shadow
    if op.quota then
      quotas = quotas + 1
      if counts then quotas_spent = quotas_spent + 1 end
    elseif counts then
      refuses = true
    end
  end
  return (refuses or quotas > 0 and quotas == quotas_spent) and not step.shadow
end

-- Says whether a strict op is written, given the verdict.
local function lands(op, b, refuse, replay)
  if op.amount == 0 and op.kind ~= DEPLETE then return op.kind == HOLD_OP and not refuse and not replay end
  if op.kind == GIVE_BACK then return b.found or b.wrote end
  if replay then return false end
  if op.judged then return not refuse or op.counts_refusals end
  if op.kind == SETTLE_OP then return not b.leased end
  if op.kind == DEPLETE then return reserving().missing(op, b) > 0 end
  return true
end

-- Applies the strict ops to the buckets.
local function write(step, refuse, replay, opened)
  local ops, of_op = step.ops, step.buckets
  for i = 1, step.n do
    local op, b = ops[i], of_op[i]
    if not op.plain and lands(op, b, refuse, replay) then
      b.wrote = true
      if op.kind == GIVE_BACK then
        b.arithmetic.give_back(op, b, b.now, op.amount)
      elseif op.kind == HOLD_OP and opened then
        local holds = opened.holds
        local member = reserving().hold(b, op, step.lease.id, #holds, opened.due, opened.due_text)
        holds[#holds + 1] = { key = b.key, spec = op, class = op.class, member = member }
      elseif op.kind == DEPLETE then
        b.arithmetic.charge(op, b, b.now, reserving().missing(op, b))
      else
        b.arithmetic.charge(op, b, b.now, op.amount)
      end
    end
  end
end

-- Writes the buckets and counters that have changed; of a step that may yet fail, PREPARE and FORGET, only the
-- counters.
local function commit(step)
  if step.phase ~= PREPARE and step.phase ~= FORGET then
    for i = 1, buckets_count do
      if buckets[i].wrote then save(buckets[i]) end
    end
  end
  if not step.plain then return end
  for i = 1, step.n do
    local op, b = step.ops[i], step.buckets[i]
    if op.plain and b.count ~= b.stored then
      local text = string.format('%.0f', b.count)
      if b.stored > 0 then
        call('SET', b.key, text, 'KEEPTTL')
      else
        call('SET', b.key, text, 'PX', time_to_live(op.ceiling))
      end
      b.stored = b.count
    end
  end
end

-- The bucket as others see it: what steps that span shards are promised of it is held.
local function seen(b)
  if b.wrote and b.state and b.pending == 0 then return b.state end
  return pack(STATE, 1, b.at, b.ends, add(b.count, b.pending), b.rest, b.entered, add(b.held, b.pending), 0)
end

local function describe(step, state)
  length = length + 1
  reply[length] = char(OK, state)
  if step.lease and step.phase < CLAIM then
    local found = step.lease.found or ''
    reply[length] = char(OK) .. pack('<I2', #found) .. found .. char(state)
  end
  for i = 1, step.n do
    local op, b, refused = step.ops[i], step.buckets[i], step.refused[i]
    length = length + 1
    if op.plain then
      reply[length] = pack('<d', refused and -1 - step.used[i] or step.used[i])
    else
      local earliest = 0
      if refused and (b.live > 0 or b.pending > 0) then earliest = reserving().earliest(b) end
      reply[length] = not refused and b.now == now and ADMITTED or pack(VERDICT, refused and 1 or 0, b.now, earliest)
      length = length + 1
      reply[length] = seen(b)
      if op.algorithm == SLIDING_LOG then
        local fits, passed = 0, 0
        if refused and op.wants <= op.ceiling then fits, passed = b.arithmetic.fits(op, b, op.wants + b.pending) end
        length = length + 1
        reply[length] = pack('<ddd', b.arithmetic.newest(b) or b.pending > 0 and b.now or 0, fits, passed)
      end
    end
  end
end

-- Judges the step and has promised to it what it needs, if no limit of this shard refuses.
local function prepare(step, replay)
  local promised = replay or reserving().join(step)
  local refuse = judge(step, promised)
  if not refuse and not promised then reserving().promise_all(step) end
  commit(step)
end

local function answer_claim(step)
  local state, l = reserving().claim(step)
  -- What was not opened of a lease that is over is not opened any more.
  local over = step.lease.action == OPEN and (l.settled or l.lapsed)
  local found = step.lease.found or ''
  local content = char(state) .. pack('<d', l.due) .. l.made_by .. pack('<I2', #found) .. found .. (over and '' or l.shards)
  length = length + 1
  reply[length] = char(OK) .. pack('<I2', #content) .. content
end

-- Says whether the lease of a step adds to its row, if the step admits, or does not open the lease.
local function adds_share(step, state)
  if step.lease.action == RENEW then return state == IS_RENEWED end
  return state ~= IS_REPLAYED
end

-- Finds out what the lease of a step adds to its row, notes what that will be in all, and reads what it is added to.
local function find_share(step)
  local lease = step.lease
  local known = lease.known
  local parts
  parts, lease.added = reporting().compare(step.share, step.said, known and known.added, known and lease.action ~= SETTLE)
  reporting().look_up(parts)
  return parts
end

-- Decides a step, and answers it. Errors are its result codes, and come before its first write.
local function decide_step(step)
  local phase, lease = step.phase, step.lease
  taken, buckets_count = 0, 0
  if phase == CLAIM then return answer_claim(step) end
  if phase == DISCLAIM then
    reserving().disclaim(step)
    return describe(step, NONE)
  end
  calendars = step.calendars
  local state = lease and phase ~= FORGET and reserving().recall(step) or NONE
  if not look(step) then error({ code = MORE }) end
  local replay = state == IS_REPLAYED or phase >= REPEAT
  if phase == PREPARE then
    prepare(step, replay)
    return describe(step, state)
  end
  if step.tells then telling().look_up(step) end
  local share = step.share and adds_share(step, state) and find_share(step) or nil
  if state == IS_RENEWED then
    if step.sums then reporting().look_up(step.sums) end -- before anything is written, whatever the checks will say
    reserving().renew(step)
  end
  local refuse
  if phase == ADMIT or phase == REFUSE then
    refuse = phase == REFUSE
  else
    refuse = judge(step, replay)
  end
  local sums = not refuse and not replay and step.sums
  if sums then reporting().look_up(sums) end
  if phase ~= WHOLE then reserving().redeem_all(step, phase == ADMIT and not replay) end
  local opened
  if lease and lease.action == OPEN and not replay then
    if refuse then
      share = nil
    else
      state = IS_OPENED
      opened = reserving().open(lease)
    end
  end
  if phase ~= FORGET then
    if lease then reserving().end_lease(step, state) end
    write(step, refuse, replay, opened)
    if step.tells then telling().tell(step) end
  end
  commit(step)
  if sums then reporting().add_up(sums) end
  if share then reporting().add_up(share) end
  if opened then reserving().save_lease(lease.key, opened) end
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
  local last = first + n + (step.lease and 1 or 0) -- of its keys
  step.sums, step.share = nil, nil
  if has(flags, REPORTS) then step.sums, step.share, step.said, pos, last = reporting().parse(pos, last) end
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
  return pos, last
end

return decide
