package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// secretPrefix begins the text of every secret.
const secretPrefix = "whsec_"

// How long a secret is, in bytes.
const shortestSecret, longestSecret = 24, 64

// Secret is a key by which messages are signed. Its text is nowhere printed.
type Secret struct{ key []byte }

// ParseSecrets reads one secret, or several with white space between: then each signs, so that receivers may change from
// one to another. Its errors do not hold what they are about.
func ParseSecrets(text string) (all []Secret, err error) {
	const cure = "make one by `echo whsec_$(openssl rand -base64 32)`"
	fields := strings.Fields(text)
	if len(fields) == 0 {
		return nil, errors.New("the secret is empty: " + cure)
	}
	for _, field := range fields {
		encoded, ok := strings.CutPrefix(field, secretPrefix)
		if !ok {
			return nil, errors.New("a secret does not begin with whsec_: " + cure)
		}
		key, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil {
			return nil, errors.New("what follows whsec_ in a secret is not base64: " + cure)
		}
		if len(key) < shortestSecret || len(key) > longestSecret {
			return nil, fmt.Errorf("a secret has %d bytes, want %d to %d: %s", len(key), shortestSecret, longestSecret, cure)
		}
		all = append(all, Secret{key})
	}
	return all, nil
}

// String keeps the secret out of what is printed.
func (Secret) String() string { return secretPrefix + "…" }

// GoString does so too.
func (s Secret) GoString() string { return s.String() }

// sign returns the signature of a message.
func (s Secret) sign(id string, at time.Time, body []byte) string {
	mac := hmac.New(sha256.New, s.key)
	mac.Write([]byte(id + "." + strconv.FormatInt(at.Unix(), 10) + "."))
	mac.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}
