#!lua
-- Writes one change of a subject, if the subject still is what it was when the change was worked out: record, name and
-- audit row, and tells those who watch.
--
-- The shebang line makes Redis refuse the whole script before its first write when memory is full or this node is no
-- master.
--
-- KEYS[1]  the records of the shard (hash)
-- KEYS[2]  the names of the domain in the shard (sorted set)
-- KEYS[3]  the audit rows of the shard (sorted set)
-- KEYS[4]  the state of the shard: its floor, and the last changes (string)
-- ARGV[1]  the field of the record
-- ARGV[2]  the name of the subject
-- ARGV[3]  the revision that it has; NONE: there is no record; UNKNOWN: it does not say
-- ARGV[4]  what is to be written, without its revision; empty: the subject is deleted
-- ARGV[5]  the id of the change, 16 bytes
-- ARGV[6]  the instant (µs) until which it may be written; empty: always
-- ARGV[7]  the audit row, without its id and revision
-- ARGV[8]  the number of the shard, as rows have it
-- ARGV[9]  how many audit rows are kept
-- ARGV[10] the channel of those who watch
-- ARGV[11] what they are told
--
-- Reply    DONE and the revision, or CONFLICT, or LATE

local ID, NUMBER, REMEMBERED = 16, 16, 64

local call, sub = redis.call, string.sub
local field, name, expected, content, id = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]

local function digits(number) return string.format('%016.0f', number) end

-- The state is the floor, the highest revision of what was deleted, and then id and revision of each of the last
-- changes, the newest first: a change that is sent again was made already.
local state = call('GET', KEYS[4]) or digits(0)
local floor, changes = tonumber(sub(state, 1, NUMBER)), sub(state, NUMBER + 1)
for at = 1, #changes, ID + NUMBER do
  if sub(changes, at, at + ID - 1) == id then
    return { 'DONE', sub(changes, at + ID, at + ID + NUMBER - 1) }
  end
end

local record = call('HGET', KEYS[1], field)
local revision = 'NONE'
if record then
  revision = record:match('^([1-9]%d*) ') or ''
  if revision == '' or #revision > 15 then revision = 'UNKNOWN' end
end
if revision ~= expected then return { 'CONFLICT' } end

local time = call('TIME')
local now = time[1] * 1000000 + time[2]
if ARGV[6] ~= '' and now > tonumber(ARGV[6]) then return { 'LATE' } end

local last = call('ZRANGE', KEYS[3], -1, -1)[1]
if last then now = math.max(now, tonumber(sub(last, 1, NUMBER)) + 1) end
local next = (tonumber(revision) or floor) + 1
local number = string.format('%.0f', next)

-- What could still fail comes first: the user may lack the channel, and the names be something else. Whoever is told
-- and asks is answered after this script.
call('PUBLISH', ARGV[10], ARGV[11])
if content == '' then
  floor = math.max(floor, next)
  call('ZREM', KEYS[2], name)
  call('HDEL', KEYS[1], field)
else
  if not record then call('ZADD', KEYS[2], 0, name) end
  call('HSET', KEYS[1], field, number .. ' ' .. content)
end
call('ZADD', KEYS[3], 0, digits(now) .. '.' .. ARGV[8] .. ' ' .. number .. ' ' .. ARGV[7])
local old = call('ZRANGE', KEYS[3], 0, -1 - tonumber(ARGV[9]))
for i = 1, #old do call('ZREM', KEYS[3], old[i]) end
call('SET', KEYS[4], digits(floor) .. sub(id .. digits(next) .. changes, 1, REMEMBERED * (ID + NUMBER)))
return { 'DONE', number }
