package subject

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"

	"github.com/rationhq/ration/limit"
)

// MinAPIKey is the least length of an API key that is added in clear, in bytes; MaxAPIKey the greatest.
const (
	MinAPIKey = 16
	MaxAPIKey = 1024
)

// KeyHash is the SHA-256 of an API key: all that is kept of it.
//
// A plain hash, without salt and fast, is right for keys that a machine has made at random only: of those there are too
// many to try. Of a word that a person has chosen it would give the word away.
//
// It is no secret as the key is, but whoever has it could try guesses against it. So it does not print itself, nor log
// itself: [KeyHash.Fingerprint] tells keys apart for people.
type KeyHash [sha256.Size]byte

// APIKey is one API key of a subject, by its hash.
type APIKey struct {
	Hash KeyHash
	// Label is for people: where the key is used, say.
	Label string
	// Created is when it was added.
	Created limit.Micros
}

// Secret is an API key in clear, on its way from an administrator to its hash. It does not print itself, nor log itself.
type Secret string

const hidden = "[hidden]"

// HashKey returns the hash of an API key as a caller sends it.
func HashKey(key string) KeyHash { return sha256.Sum256([]byte(key)) }

// NewAPIKey makes of a key in clear what a subject lists. A key that could be guessed is refused.
func NewAPIKey(key Secret, label string, created limit.Micros) (APIKey, error) {
	switch {
	case len(key) < MinAPIKey:
		return APIKey{}, invalid("api_key", "it has %d bytes, and could be guessed: let a machine make one at random, "+
			"of %d bytes or more (openssl rand -hex 24)", len(key), MinAPIKey)
	case len(key) > MaxAPIKey:
		return APIKey{}, invalid("api_key", "it has %d bytes: %d are the most", len(key), MaxAPIKey)
	}
	return APIKey{Hash: HashKey(string(key)), Label: label, Created: created}, nil
}

// Fingerprint is the beginning of the hash: enough to tell a subject's keys apart, and too little to find a key by.
func (h KeyHash) Fingerprint() string { return hex.EncodeToString(h[:4]) }

// Hex returns the whole hash, for administrators who ask for it.
func (h KeyHash) Hex() string { return hex.EncodeToString(h[:]) }

// ParseKeyHash reads what [KeyHash.Hex] writes.
func ParseKeyHash(text string) (h KeyHash, err error) {
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != len(h) {
		return h, invalid("api_key_hash", "it is not a SHA-256 in hexadecimal: 64 of the digits 0…9 and a…f "+
			"(printf %%s \"$KEY\" | sha256sum)")
	}
	return KeyHash(raw), nil
}

// Format hides it from every verb of package fmt.
func (KeyHash) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(hidden)) }

// String hides it.
func (KeyHash) String() string { return hidden }

// LogValue hides it.
func (KeyHash) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalText hides it from encoders that walk over structs.
func (KeyHash) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// Format hides it from every verb of package fmt.
func (Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(hidden)) }

// String hides it.
func (Secret) String() string { return hidden }

// LogValue hides it.
func (Secret) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalText hides it from encoders that walk over structs.
func (Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }
