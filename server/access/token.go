package access

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
)

// Prefix begins every token that ration makes, so that people and scanners of secrets recognise one.
const Prefix = "ration_"

// maxToken is how long a token is at most, in bytes: what is longer is none, and is not hashed.
const maxToken = 256

// NewToken returns a fresh token of 256 random bits, and the digits of its hash. No salt is needed, nor a slow hash:
// nobody finds such a token by trying.
func NewToken() (token, hash string) {
	var random [32]byte
	_, _ = rand.Read(random[:]) // never fails
	token = Prefix + base64.RawURLEncoding.EncodeToString(random[:])
	sum := sha256.Sum256([]byte(token))
	return token, hex.EncodeToString(sum[:])
}
