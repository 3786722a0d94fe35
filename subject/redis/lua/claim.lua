#!lua
-- Lets a subject claim an API key, before its record lists it.
--
-- KEYS[1]  the owners of the API keys of the shard (hash)
-- ARGV[1]  the hash of the key
-- ARGV[2]  who claims it
-- ARGV[3]  the token of the claim, 16 bytes
-- ARGV[4]  the claim of another subject, as it was read, that is replaced: it was old enough, and that subject does not
--          list the key. Empty: none
-- ARGV[5]  how old (µs) is old enough
--
-- A claim is one letter: N if there was none before, else R; the instant (µs) in 16 digits; its token; and who claims.
--
-- Reply    MINE and the claim, or OTHER and the other's, and whether it is old enough, or none at all: 1 or 0

local TOKEN, TIME, CLAIMANT = 18, 16, 34

local call, sub = redis.call, string.sub
local hash, claimant, token, old = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local held = call('HGET', KEYS[1], hash)
if held and sub(held, TOKEN, CLAIMANT - 1) == token then return { 'MINE', held } end -- sent again
local time = call('TIME')
local now = time[1] * 1000000 + time[2]
if held and held ~= old and sub(held, CLAIMANT) ~= claimant then
  local made = tonumber(sub(held, 2, TIME + 1))
  return { 'OTHER', held, (not made or now - made > tonumber(ARGV[5])) and 1 or 0 }
end
local claim = (held and 'R' or 'N') .. string.format('%016.0f', now) .. token .. claimant
call('HSET', KEYS[1], hash, claim)
return { 'MINE', claim }
