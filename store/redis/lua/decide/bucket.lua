-- Buckets of the strict manner: a string each, which holds the state.
--
--   version uint8 (1), at, ends, count, rest, entered, held, and until when Redis keeps it; where there have
--   been holds, and of a log, also live, next, last, made: how many are live, when the first is due or may
--   be, when the last is, and how many have been made; behind that the entries of a log, or, and then the
--   version is 2, the floors of the holds on a token bucket
--
-- Numbers are of 7 bytes, little-endian. (Lua finds a string by a hash of every second byte of it. Of float64s
-- these are not the ones that differ.)

local STATE, STATE_SIZE = '<Bi7i7i7i7i7i7i7', 50
local WITH_HOLDS, WITH_HOLDS_SIZE = '<Bi7i7i7i7i7i7i7i7i7i7i7', 78
local SHORT_LOG = 32 -- entries
local KEPT_LONGER = 10000000 -- at least, µs: see save
local SHORT_LOG_END = tostring(LOG_HEAD + SHORT_LOG * ENTRY_SIZE - 1)

local constructors = {
  [FIXED_WINDOW] = period, [FIRST_USE] = period, [CALENDAR] = period, [TOKEN_BUCKET] = token_bucket,
  [SLIDING_WINDOW] = sliding_window, [SLIDING_LOG] = sliding_log, [CONCURRENCY] = concurrency,
}
local arithmetics = {}

local function arithmetic(algorithm)
  local a = arithmetics[algorithm]
  if not a then
    a = constructors[algorithm]()
    arithmetics[algorithm] = a
  end
  return a
end

-- Reports a reply that is not what ration writes; or that the key is on another node, while a cluster moves
-- its shard and the step could not name it; or that it could not be read at all.
local function unreadable(reply)
  if type(reply) == 'table' and reply.err and reply.err:find('non local key', 1, true) then
    error({ code = ELSEWHERE })
  end
  error(foreign(reply) and { code = CORRUPT } or reply)
end

-- Tables are made once for a batch, and used again by each of its steps: making them costs more than
-- all that is done with them.
local spare, taken = {}, 0

local function new_bucket()
  taken = taken + 1
  local b = spare[taken]
  if not b then
    b = {}
    spare[taken] = b
  end
  return b
end

-- Reads the bucket under key, which is looked at by spec: its state, and as `now` the instant at which
-- that stands. An absent bucket has counted nothing.
local function read(key, spec)
  local logs = spec.algorithm == SLIDING_LOG
  local raw
  if logs then
    raw = pcall('GETRANGE', key, '0', SHORT_LOG_END)
    if raw == '' then raw = false end
  else
    raw = pcall('GET', key)
  end
  local b = new_bucket()
  b.key, b.spec, b.arithmetic, b.wrote, b.leased = key, spec, spec.arithmetic, false, false
  b.live, b.made, b.new_set, b.found, b.pending, b.state, b.size = 0, 0, false, raw ~= false, 0, nil, 0
  b.floors, b.laid = nil, ''
  if not raw then
    b.at, b.ends, b.count, b.rest, b.entered, b.held, b.kept_until, b.next, b.last, b.log = 0, 0, 0, 0, 0, 0, 0, 0, 0, ''
    return b
  end
  if type(raw) ~= 'string' then unreadable(raw) end
  local size, version, expected = #raw, 0, 1
  b.size = size
  if size == STATE_SIZE and not logs then
    version, b.at, b.ends, b.count, b.rest, b.entered, b.held, b.kept_until = unpack(STATE, raw)
  elseif size == WITH_HOLDS_SIZE or size > WITH_HOLDS_SIZE and logs then
    version, b.at, b.ends, b.count, b.rest, b.entered, b.held, b.kept_until, b.live, b.next, b.last, b.made =
      unpack(WITH_HOLDS, raw)
  elseif size > WITH_HOLDS_SIZE and spec.algorithm == TOKEN_BUCKET then
    expected, b.laid = 2, raw:sub(WITH_HOLDS_SIZE + 1)
    if #b.laid % FLOOR_SIZE ~= 0 then unreadable() end
    version, b.at, b.ends, b.count, b.rest, b.entered, b.held, b.kept_until, b.live, b.next, b.last, b.made =
      unpack(WITH_HOLDS, raw)
  end
  if version ~= expected or not (b.count >= 0 and b.count <= MAX_AMOUNT) then unreadable() end
  if logs then
    local stored = LOG_HEAD + b.entered * ENTRY_SIZE
    b.log, b.chunk_from = nil, nil
    if b.entered <= SHORT_LOG then
      b.log = raw:sub(LOG_HEAD + 1, stored)
      if #b.log ~= b.entered * ENTRY_SIZE then unreadable() end
    elseif call('STRLEN', key) < stored then
      unreadable()
    end
  end
  return b
end

-- Returns what a counter of the plain manner has counted.
local function load_counter(key)
  local stored = pcall('GET', key)
  if not stored then return 0 end
  if type(stored) ~= 'string' or not (stored == '0' or stored:find('^[1-9]%d*$')) then unreadable(stored) end
  local used = tonumber(stored)
  if used > MAX_AMOUNT then unreadable() end
  return used
end

-- limit.Advance, to t, or to where the bucket stands if that is a little later.
local function advance(s, b, t)
  if t < b.at and b.at - t <= TOLERANCE then t = b.at end
  b.arithmetic.advance(s, b, t)
  return t
end

-- Writes a bucket. It is kept until it equals an absent one, and for the tolerance after. What Redis keeps for
-- long enough already is overwritten in its place, which costs a third. So where each charge moves that
-- instant on, Redis is asked for somewhat more.
local function save(b)
  local spec = b.spec
  local logs = spec.algorithm == SLIDING_LOG
  local forget = b.arithmetic.idle(spec, b)
  if b.live > 0 then forget = max(forget, b.last) end
  forget = forget + TOLERANCE
  local renew = forget > b.kept_until
  if renew then
    local moves_on = b.arithmetic.moves_on or b.live > 0
    b.kept_until = add(forget, moves_on and max(KEPT_LONGER, floor((forget - now) / 8)) or 0)
  end
  local raw
  if b.made > 0 or logs then
    local laid = logs and '' or lay(b)
    raw = pack(WITH_HOLDS, laid == '' and 1 or 2, b.at, b.ends, b.count, b.rest, b.entered, b.held, b.kept_until, b.live, b.next, b.last, b.made) .. laid
    b.state = nil
  else
    raw = pack(STATE, 1, b.at, b.ends, b.count, b.rest, b.entered, b.held, b.kept_until)
    b.state = raw
  end
  local in_place = logs and not b.log -- the entries of a long log are there already
  if logs and b.log then raw = raw .. b.log end
  if in_place or not renew and #raw >= b.size then
    call('SETRANGE', b.key, '0', raw) -- '0': a number would be printed first
    if renew then call('PEXPIRE', b.key, time_to_live(b.kept_until)) end
  else
    call('SET', b.key, raw, 'PX', time_to_live(b.kept_until))
  end
  if not in_place then b.size = #raw end
  if logs and b.entered > SHORT_LOG then b.log = nil end
  if b.live > 0 and (renew or b.new_set) then
    b.new_set = false
    call('PEXPIRE', b.key .. '#holds', time_to_live(b.kept_until))
  end
end
