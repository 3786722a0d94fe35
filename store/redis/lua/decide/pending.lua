-- Promises: what steps that span shards have been promised of a bucket, and have not yet taken or let go. See
-- span.go. They lie beside the bucket, whose state does not know of them, in a hash:
--
--   sum    how much all of them are
--   next   when the first of them lapses, or may (µs)
--   and under the id of each transaction (16 bytes) when its promise lapses and how much it is, as float64, and
--   the transactions, 16 bytes each, that share it
--
-- Those are twins: a request to open a lease that is sent more than once, perhaps by several servers at once. What
-- they are promised is under the id of the transaction that made the lease's directory. Whichever of them is
-- first to write does so for all.

local PROVISIONAL = 5000000 -- see span.go
local PROMISE, PROMISE_SIZE = '<dd', 16
local TRANSACTION_SIZE = 16
local MOST_TWINS, NOBODY = 16, string.rep('\0', TRANSACTION_SIZE)

-- Adds a transaction to a list of them. Beyond the most that are noted stands nobody, who never leaves it.
local function with(list, transaction)
  local n = #list / TRANSACTION_SIZE
  if n == MOST_TWINS then return list end
  return list .. (n < MOST_TWINS - 1 and transaction or NOBODY)
end

-- Takes a transaction from a list of them.
local function without(list, transaction)
  local others = ''
  for i = 1, #list, TRANSACTION_SIZE do
    local other = list:sub(i, i + TRANSACTION_SIZE - 1)
    if other ~= transaction then others = others .. other end
  end
  return others
end

local function save_pending(b, next_due)
  local key = b.key .. '#pending'
  if b.pending == 0 then
    call('DEL', key)
    return
  end
  b.pending_next = next_due
  call('HSET', key, 'sum', string.format('%.0f', b.pending), 'next', string.format('%.0f', next_due))
end

-- Forgets the promises that are due: whoever asked for them has not come back. One that would last for longer
-- than any does is of another clock, that of a master before this one, or of this one before it was set back.
local function lapse_pending(b)
  local key = b.key .. '#pending'
  local all = call('HGETALL', key)
  local sum, next_due = 0, MAX_AMOUNT
  for i = 1, #all, 2 do
    if #all[i] == TRANSACTION_SIZE then
      local due, amount = unpack(PROMISE, all[i + 1])
      if due > now + PROVISIONAL then
        due = now + PROVISIONAL
        call('HSET', key, all[i], pack(PROMISE, due, amount) .. all[i + 1]:sub(PROMISE_SIZE + 1))
      end
      if due <= now then
        call('HDEL', key, all[i])
      else
        sum, next_due = sum + amount, min(next_due, due)
      end
    end
  end
  b.pending = sum
  save_pending(b, next_due)
end

-- Finds out how much of a bucket is promised.
local function read_pending(b)
  local raw = pcall('HMGET', b.key .. '#pending', 'sum', 'next')
  if raw.err then unreadable(raw) end
  if not raw[1] then return end
  b.pending, b.pending_next = tonumber(raw[1]), tonumber(raw[2])
  if not b.pending or not b.pending_next then unreadable() end
  if b.pending_next <= now or b.pending_next > now + PROVISIONAL then lapse_pending(b) end
end

-- Under which id a step is promised something.
local function holder(step)
  local lease = step.lease
  return lease and lease.action == OPEN and lease.made_by or step.transaction
end

local function write_promise(b, id, p)
  call('HSET', b.key .. '#pending', id, pack(PROMISE, p.due, p.amount) .. p.twins)
end

-- Keeps the promises of a bucket until the last of them lapses, which is one that is made now.
local function keep_pending(b) call('PEXPIRE', b.key .. '#pending', time_to_live(now + PROVISIONAL)) end

-- Promises an amount of a bucket.
local function promise(b, id, p)
  local next_due = b.pending == 0 and p.due or min(b.pending_next, p.due)
  b.pending = b.pending + p.amount
  save_pending(b, next_due)
  write_promise(b, id, p)
  keep_pending(b)
end

-- Returns what has been promised of a bucket; nil if that has lapsed, or there was nothing.
local function promised(b, id)
  if b.pending == 0 then return nil end
  local raw = call('HGET', b.key .. '#pending', id)
  if not raw then return nil end
  local p = { twins = raw:sub(PROMISE_SIZE + 1) }
  p.due, p.amount = unpack(PROMISE, raw)
  return p
end

-- Ends a promise.
local function redeem(b, id, amount)
  call('HDEL', b.key .. '#pending', id)
  if b.pending > MAX_AMOUNT then -- and so perhaps rounded
    lapse_pending(b)
    return
  end
  b.pending = b.pending - amount
  save_pending(b, b.pending_next)
end

-- Returns by bucket what the step would charge and hold there.
local function asks(step)
  local amounts = {}
  for i = 1, step.n do
    local op, b = step.ops[i], step.buckets[i]
    -- A charge of places counts nothing.
    if not op.plain and (op.kind == HOLD_OP or op.kind == CHARGE and op.algorithm ~= CONCURRENCY) and op.amount > 0 then
      amounts[b] = (amounts[b] or 0) + op.amount
    end
  end
  return amounts
end

-- Promises the step all that it asks for.
local function promise_all(step)
  local id = holder(step)
  for b, amount in pairs(asks(step)) do
    promise(b, id, { due = now + PROVISIONAL, amount = amount, twins = step.transaction })
  end
end

-- Has the step share what was promised to a twin of it. Returns false if nothing was. If it asks for something else,
-- since a policy has changed between the two, it is too late.
local function join(step)
  local lease = step.lease
  if not lease or lease.action ~= OPEN then return false end
  local id, found, other = holder(step), {}, false
  for b, amount in pairs(asks(step)) do
    found[b] = promised(b, id)
    other = other or not found[b] or found[b].amount ~= amount
  end
  if not next(found) then return false end
  if other then error({ code = LATE }) end
  for b, p in pairs(found) do
    p.due, p.twins = now + PROVISIONAL, with(p.twins, step.transaction)
    write_promise(b, id, p)
    keep_pending(b)
  end
  return true
end

-- Ends the promises of the step, unless a twin may still need them. Where the step itself does and has none any more,
-- it is too late: nothing is written.
local function redeem_all(step, needed)
  local id, found = holder(step), {}
  for b, amount in pairs(asks(step)) do
    local p = promised(b, id)
    if p then
      p.others = without(p.twins, step.transaction)
      if p.others == p.twins then p = nil end
    end
    if needed and not (p and p.amount == amount) then error({ code = LATE }) end
    found[b] = p
  end
  for b, p in pairs(found) do
    p.twins = p.others
    if needed or p.twins == '' then redeem(b, id, p.amount) else write_promise(b, id, p) end
  end
end
