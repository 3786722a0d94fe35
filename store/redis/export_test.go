package redis

import "github.com/redis/go-redis/v9"

// ChangeScript makes the script of this process another one, which means the same.
func ChangeScript(comment string) {
	changed := redis.NewScript(source() + "\n-- " + comment + "\n")
	script = func() *redis.Script { return changed }
}

// ScriptHash is what Redis knows the script of this process by.
func ScriptHash() string { return script().Hash() }
