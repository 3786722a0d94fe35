#!lua
-- Decides a batch of steps, each on its own: a step that cannot be written whole is not written at
-- all.
--
-- The twin of package limit and of store/memory/decide.go: same names, same order. The conformance
-- suite holds them equal. The script is made of the files of this folder: this head; plain.lua; those
-- of limit/ and decide/, which only batches with strict steps pay for; and batch.lua, the main loop.
--
-- The shebang line makes Redis refuse the whole script before its first write when memory is full or
-- this node is no master.
--
-- KEYS     for each step in order: the key of each op (a key may come more than once), the key of
--          its lease if it has one, and those of what its rows add to. Behind those of all steps, in a cluster,
--          what lies beside the buckets of strict ops: nobody reads them here, but Redis sees whether this node
--          has them all.
-- ARGV[1]  the steps, little-endian: see batch.lua, plain.lua and decide/step.lua.
-- ARGV[2]  now in µs; empty in production, where the clock of Redis counts. Only tests set it.
-- ARGV[3…] where there are no steps: a key, a channel, and what has to be permitted (batch.lua).
--
-- Reply    one string: now as float64, then for each step its code, and
--            OK     plain charges: for each op what is used as float64, or −1 − used where the op's
--                   own limit refuses; else see decide/decide.lua
--            AGAIN  the number of calendars that are needed, each as uint8 length and name: the
--                   windows are not those of now

local OK, AGAIN, CORRUPT, CONFLICT, MORE, FAILED, LATE, ELSEWHERE = 0, 1, 2, 3, 4, 5, 6, 7
local MAX_AMOUNT = 9007199254740991 -- 2^53 − 1: every integer up to here is exact
local TOLERANCE = 60000000 -- limit.Tolerance

local pack, unpack, floor = struct.pack, struct.unpack, math.floor
local char, byte, sub = string.char, string.byte, string.sub
local min, max = math.min, math.max
local call, pcall, protected = redis.call, redis.pcall, pcall

local steps = ARGV[1]
local at_end -- where it is set, what is left to do behind the last step
local now = tonumber(ARGV[2])
local standing = now ~= nil -- a test's clock may stand still while the time to live runs
if not now then
  local time = call('TIME')
  now = time[1] * 1000000 + time[2]
end

-- Says of the reply to a command that reads or counts whether its key holds something else than ration writes.
-- If not, the command itself failed, for want of a permission, say.
local function foreign(reply)
  return type(reply) ~= 'table' or not reply.err or reply.err:find('WRONGTYPE', 1, true)
    or reply.err:find('not an integer', 1, true) or reply.err:find('would overflow', 1, true)
end

-- The reply, and how many parts it has: counting them anew for each would cost more than the rest.
local reply, length = { pack('<d', now) }, 1

-- Milliseconds, as whole seconds, until a counter may be forgotten. It is text, and remembered: printing a number
-- costs Redis as much as reading a key.
local times_to_live = {}
local function time_to_live(forget)
  local ttl = (forget - now) / 1000000
  ttl = ttl > 0 and ttl - ttl % 1 + 1 or 1
  if standing then ttl = ttl + 3600 end
  local text = times_to_live[ttl]
  if not text then
    text = string.format('%.0f', ttl * 1000)
    times_to_live[ttl] = text
  end
  return text
end
