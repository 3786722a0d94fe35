#!lua
-- Takes a claim back, if nobody has claimed the API key since.
--
-- KEYS[1]  the owners of the API keys of the shard (hash)
-- ARGV[1]  the hash of the key
-- ARGV[2]  the claim

if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then redis.call('HDEL', KEYS[1], ARGV[1]) end
return 1
