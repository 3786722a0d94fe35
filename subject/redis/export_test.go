package redis

import "time"

// Commands are those that Ready asks for.
var Commands = commands

// Script returns the source of a script.
func Script(name string) string {
	source, err := lua.ReadFile("lua/" + name + ".lua")
	if err != nil {
		panic(err)
	}
	return string(source)
}

// SetClaimTimes sets for how long after a claim the record may be written, and when a claim is abandoned.
func (d *Directory) SetClaimTimes(fence, abandoned time.Duration) {
	d.fence, d.abandoned = fence, abandoned
}
