#!lua
-- Says what the user may not do, one a line, of what the other scripts do: the script asks, since users who may ask by
-- ACL DRYRUN may change permissions as well, and managed services let nobody. It writes nothing, but where Redis would
-- refuse a write, it refuses this.
--
-- KEYS     none
-- ARGV[1]  a key
-- ARGV[2]  a channel
-- ARGV[3…] commands, each with as many words as it must have; * is the key, & the channel

local missing = {}
local meant = { ['*'] = ARGV[1], ['&'] = ARGV[2] }
for i = 3, #ARGV do
  local words = {}
  for word in ARGV[i]:gmatch('%S+') do words[#words + 1] = meant[word] or word end
  local known, may = pcall(redis.acl_check_cmd, unpack(words))
  if known and not may then missing[#missing + 1] = words[1] end
end
return missing
