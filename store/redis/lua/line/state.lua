-- All that is known of a line: what its hash holds, and its waiters. KEYS as in line.lua.
return { redis.call('HGETALL', KEYS[1]), redis.call('ZRANGE', KEYS[3], 0, -1, 'WITHSCORES') }
