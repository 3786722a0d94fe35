-- What steps report of usage, added up: store.Row. A step with rows has behind its ops
--
--   rows        uint8: how many; each: uint8 how many additions follow, each column uint8 and amount float64; the
--               owner with uint16 length; uint8: how many sums it adds to; each:
--                 column uint8, or NO_COLUMN; when its key may go (µs) as float64; field with uint16 length
--
-- and behind its other keys one for each of these sums. Without a column the sum is in a hash, under the field: all
-- columns that have one, each as uint8, and the sum as int56. With a column it is the score of the owner in a
-- sorted set, which is less than 0 for who has used something: the first are those who have used most, by name.

local NO_COLUMN = 255
local COLUMN_SIZE = 8

local function pinned(sum) return max(-MAX_AMOUNT, min(sum, MAX_AMOUNT)) end

-- Formats of so many columns: of sums, and of additions.
local sum_formats, addition_formats = {}, {}
local function format_of(formats, one, n)
  local format = formats[n]
  if not format then
    format = '<' .. one:rep(n)
    formats[n] = format
  end
  return format
end

-- Reads the rows of a step at pos; their first key is the one behind number first. Returns the sums, and where they
-- end.
local function parse_rows(pos, first)
  local sums, n = {}, 0
  local rows = byte(steps, pos)
  pos = pos + 1
  for _ = 1, rows do
    local count = byte(steps, pos)
    local additions = { unpack(format_of(addition_formats, 'Bd', count), steps, pos + 1) }
    local owner, of_row
    owner, of_row, pos = unpack('<I2c0B', steps, additions[2 * count + 1])
    for _ = 1, of_row do
      local s = { owner = owner, additions = additions, additions_end = 2 * count }
      s.column, s.forget, s.field, pos = unpack('<BdI2c0', steps, pos)
      n = n + 1
      s.key = KEYS[first + n]
      sums[n] = s
    end
  end
  sums.n, sums.rows = n, rows
  return sums, pos
end

-- Finds a sum among the first n that is the same as another one: a step may have rows that add to one.
local function find_sum(sums, n, s)
  for i = 1, n do
    local other = sums[i]
    if other.key == s.key and (s.column ~= NO_COLUMN and other.owner == s.owner or s.column == NO_COLUMN and other.field == s.field) then
      return other
    end
  end
end

-- Reads the columns of a sum: by turns a column, and what is in it.
local function read_columns(s)
  local raw = pcall('HGET', s.key, s.field)
  if not raw then
    s.columns, s.columns_end = {}, 0
    return
  end
  if type(raw) ~= 'string' or #raw % COLUMN_SIZE ~= 0 then unreadable(raw) end
  local count = #raw / COLUMN_SIZE
  s.columns, s.columns_end = { unpack(format_of(sum_formats, 'Bi7', count), raw) }, 2 * count
end

local function read_score(s)
  local raw = pcall('ZSCORE', s.key, s.owner)
  s.score = 0
  if not raw then return end
  s.score = type(raw) == 'string' and tonumber(raw)
  if not s.score or s.score % 1 ~= 0 or pinned(s.score) ~= s.score then unreadable(raw) end
end

local function add_columns(s, additions, last)
  local columns = s.columns
  for i = 1, last, 2 do
    local column, at = additions[i], i
    if columns[at] ~= column or at > s.columns_end then -- mostly they come in the order of the first time
      at = 1
      while at <= s.columns_end and columns[at] ~= column do at = at + 2 end
      if at > s.columns_end then
        columns[at], columns[at + 1], s.columns_end = column, 0, at + 1
      end
    end
    columns[at + 1] = pinned(columns[at + 1] + additions[i + 1])
  end
end

local function add_score(s, additions, last)
  for i = 1, last, 2 do
    if additions[i] == s.column then s.score = pinned(s.score - additions[i + 1]) end
  end
end

-- Reads the sums of a step, and adds to them; writes nothing.
local function add_rows(sums)
  for i = 1, sums.n do
    local s = sums[i]
    local same = sums.rows > 1 and find_sum(sums, i - 1, s)
    s.same = same
    local into = same or s
    if s.column == NO_COLUMN then
      if not same then read_columns(s) end
      add_columns(into, s.additions, s.additions_end)
    else
      if not same then read_score(s) end
      add_score(into, s.additions, s.additions_end)
    end
  end
end

-- Writes them.
local function save_rows(sums)
  for i = 1, sums.n do
    local s = sums[i]
    if not s.same then
      local made
      if s.column == NO_COLUMN then
        local raw = pack(format_of(sum_formats, 'Bi7', s.columns_end / 2), _G.unpack(s.columns, 1, s.columns_end))
        made = call('HSET', s.key, s.field, raw)
      else
        made = call('ZADD', s.key, string.format('%.0f', s.score), s.owner)
      end
      if made == 1 then call('PEXPIRE', s.key, time_to_live(s.forget)) end
    end
  end
end

return { parse = parse_rows, add = add_rows, save = save_rows }
