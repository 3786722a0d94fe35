-- Buckets of the strict manner: a string each, which holds the state.
--
--   version uint8 (1, or 2 with holds, and for logs), at, ends, count, rest, entered, held as float64;
--   with 2 also live, next, last, made: how many holds are live, when the first and the last are due
--   (the first may be due later than that), and how many have been made; then the entries of a log

local STATE, STATE_SIZE = '<Bdddddd', 49
local WITH_HOLDS, WITH_HOLDS_SIZE = '<Bdddddddddd', 81
local SHORT_LOG = 32 -- entries

local constructors = {
  [FIXED_WINDOW] = period, [FIRST_USE] = period, [CALENDAR] = period, [TOKEN_BUCKET] = token_bucket,
  [SLIDING_WINDOW] = sliding_window, [SLIDING_LOG] = sliding_log, [CONCURRENCY] = concurrency,
}
local arithmetics = {}

local function arithmetic(s)
  local a = arithmetics[s.algorithm]
  if not a then
    a = constructors[s.algorithm]()
    arithmetics[s.algorithm] = a
  end
  return a
end

-- The states that were read or written in this batch, by key.
local buckets = {}

local function corrupt() error({ code = CORRUPT }) end

local function read(key, algorithm)
  local st = nothing()
  local raw
  if algorithm == SLIDING_LOG then
    st.key = key
    raw = pcall('GETRANGE', key, 0, LOG_HEAD + SHORT_LOG * ENTRY_SIZE - 1)
    if raw == '' then
      st.log = ''
      return st
    end
  else
    raw = pcall('GET', key)
    if not raw then return st end
  end
  if type(raw) ~= 'string' then corrupt() end
  local version, size = raw:byte(), #raw
  if version == 1 and size == STATE_SIZE and algorithm ~= SLIDING_LOG then
    local _
    _, st.at, st.ends, st.count, st.rest, st.entered, st.held = unpack(STATE, raw)
  elseif version == 2 and (size == WITH_HOLDS_SIZE or algorithm == SLIDING_LOG and size > WITH_HOLDS_SIZE) then
    local _
    _, st.at, st.ends, st.count, st.rest, st.entered, st.held, st.live, st.next, st.last, st.made =
      unpack(WITH_HOLDS, raw)
  else
    corrupt()
  end
  if not (st.count >= 0 and st.count <= MAX_AMOUNT and st.held >= 0 and st.held <= MAX_AMOUNT) then corrupt() end
  if algorithm == SLIDING_LOG then
    local stored = st.entered * ENTRY_SIZE
    if st.entered <= SHORT_LOG then
      if size < LOG_HEAD + stored then corrupt() end
      st.log = raw:sub(LOG_HEAD + 1, LOG_HEAD + stored)
    elseif call('STRLEN', key) < LOG_HEAD + stored then
      corrupt()
    end
  end
  return st
end

-- Returns the state of a bucket as it is stored. It may not be changed.
local function load(key, algorithm)
  local st = buckets[key]
  if not st then
    st = read(key, algorithm)
    buckets[key] = st
  end
  return st
end

local function copy(st)
  local c = {}
  for k, v in next, st do c[k] = v end
  return c
end

-- Returns what a counter of the plain manner has counted.
local function load_counter(key)
  local stored = pcall('GET', key)
  if not stored then return 0 end
  if type(stored) ~= 'string' or not (stored == '0' or stored:find('^[1-9]%d*$')) then corrupt() end
  local used = tonumber(stored)
  if used > MAX_AMOUNT then corrupt() end
  return used
end

-- limit.Advance.
local function advance(s, st, t)
  if t < st.at and st.at - t <= TOLERANCE then t = st.at end
  arithmetic(s).advance(s, st, t)
  return t
end

-- Writes the state of a bucket. It is kept until it equals an absent one, and for the tolerance after.
local function save(key, s, st)
  local forget = arithmetic(s).idle(s, st)
  local raw
  if st.live > 0 then
    forget = max(forget, st.last)
  elseif s.algorithm == SLIDING_LOG then
    st.next, st.last, st.made = 0, 0, 0
  end
  if st.live > 0 or s.algorithm == SLIDING_LOG then
    raw = pack(WITH_HOLDS, 2, st.at, st.ends, st.count, st.rest, st.entered, st.held, st.live, st.next, st.last, st.made)
  else
    raw = pack(STATE, 1, st.at, st.ends, st.count, st.rest, st.entered, st.held)
  end
  local ttl = time_to_live(add(forget, TOLERANCE))
  if s.algorithm ~= SLIDING_LOG then
    call('SET', key, raw, 'PX', ttl)
  elseif st.log then
    call('SET', key, raw .. st.log, 'PX', ttl)
    if st.entered > SHORT_LOG then st.log = nil end
  else
    call('SETRANGE', key, 0, raw)
    call('PEXPIRE', key, ttl)
  end
  if st.live > 0 then call('PEXPIRE', key .. '#holds', ttl) end
  buckets[key] = st
end
