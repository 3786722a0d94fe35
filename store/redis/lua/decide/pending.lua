-- Promises: what steps that span shards have been promised of a bucket, and have not yet taken or let go. See
-- span.go. They lie beside the bucket, whose state does not know of them, in a hash:
--
--   sum    how much all of them are
--   next   when the first of them lapses, or may (µs)
--   and under the id of each transaction (16 bytes) when its promise lapses, and how much it is, as float64

local PROVISIONAL = 5000000 -- see span.go
local PROMISE = '<dd'
local TRANSACTION_SIZE = 16

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
        call('HSET', key, all[i], pack(PROMISE, due, amount))
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

-- Promises a transaction an amount of a bucket.
local function promise(b, transaction, amount)
  local due = now + PROVISIONAL
  local next_due = b.pending == 0 and due or min(b.pending_next, due)
  b.pending = b.pending + amount
  call('HSET', b.key .. '#pending', transaction, pack(PROMISE, due, amount))
  save_pending(b, next_due)
  call('PEXPIRE', b.key .. '#pending', time_to_live(due))
end

-- Returns what a transaction has been promised of a bucket; nil if that has lapsed, or there was nothing.
local function promised(b, transaction)
  if b.pending == 0 then return nil end
  local raw = call('HGET', b.key .. '#pending', transaction)
  if not raw then return nil end
  local _, amount = unpack(PROMISE, raw)
  return amount
end

-- Ends the promise of an amount to a transaction.
local function redeem(b, transaction, amount)
  call('HDEL', b.key .. '#pending', transaction)
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
  for b, amount in pairs(asks(step)) do promise(b, step.transaction, amount) end
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
