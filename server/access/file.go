package access

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/rationhq/ration/engine"
)

// MaxFile is the largest file that is read, in bytes.
const MaxFile = 1 << 20

// Right is what a token permits.
type Right string

// The rights.
const (
	// Account permits all of AccountingService and UsageService.
	Account Right = "account"
	// Read permits what changes nothing: AccountingService.Check and UsageService.
	Read Right = "read"
	// Admin permits AdminService.
	Admin Right = "admin"
)

// Token is what is known of a token; not the token itself.
type Token struct {
	Name string
	// Hash is the SHA-256 of the token's text.
	Hash [sha256.Size]byte
	// May is what it permits.
	May []Right
	// Domains and Subjects are those for which it does; none: all.
	Domains  []string
	Subjects []engine.SubjectPattern
	// Expires is from when on it is not taken any more; zero: never.
	Expires time.Time
}

// permits reports whether the token has one of the rights.
func (t *Token) permits(rights []Right) bool {
	return slices.ContainsFunc(rights, func(r Right) bool { return slices.Contains(t.May, r) })
}

// List are the tokens of a file. It does not change.
type List struct {
	tokens map[[sha256.Size]byte]*Token
}

// Len returns how many tokens there are.
func (l *List) Len() int { return len(l.tokens) }

// lookUp returns what is known of a token; nil: nothing. The map is asked by a hash that nobody can choose: how long it
// takes tells nothing of tokens that are in it.
func (l *List) lookUp(token string) *Token {
	return l.tokens[sha256.Sum256([]byte(token))]
}

// words is a list in YAML, of which one alone may stand without brackets.
type words []string

// UnmarshalYAML implements yaml.Unmarshaler.
func (w *words) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		*w = words{n.Value}
		return nil
	}
	return n.Decode((*[]string)(w))
}

type document struct {
	Tokens *[]entry `yaml:"tokens"`
}

type entry struct {
	Name     string `yaml:"name"`
	SHA256   string `yaml:"sha256"`
	May      words  `yaml:"may"`
	Domains  words  `yaml:"domains"`
	Subjects words  `yaml:"subjects"`
	Expires  string `yaml:"expires"`
}

// Parse reads a file of tokens. Its errors name what is wrong of which token, all of them, and hold neither hashes nor
// whatever stands in their place.
func Parse(data []byte) (*List, error) {
	if len(data) > MaxFile {
		return nil, fmt.Errorf("%d bytes, at most %d are read", len(data), MaxFile)
	}
	var d document
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	if err := decoder.Decode(&d); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if d.Tokens == nil {
		return nil, errors.New("it has no `tokens:`: an empty list, `tokens: []`, lets nobody in")
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("it has more than one document: write one list of `tokens:`")
	}
	l := &List{tokens: make(map[[sha256.Size]byte]*Token, len(*d.Tokens))}
	names := make(map[string]bool)
	var problems []error
	for i := range *d.Tokens {
		t, err := (*d.Tokens)[i].token()
		switch {
		case err != nil:
		case names[t.Name]:
			err = errors.New("another token has the same name")
		case l.tokens[t.Hash] != nil:
			err = fmt.Errorf("it is the same token as %q", l.tokens[t.Hash].Name)
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("tokens[%d] (%.100q): %w", i, (*d.Tokens)[i].Name, err))
			continue
		}
		names[t.Name], l.tokens[t.Hash] = true, t
	}
	return l, errors.Join(problems...)
}

// token returns what the entry says.
func (e *entry) token() (*Token, error) {
	t := &Token{Name: e.Name, Domains: e.Domains}
	if strings.TrimSpace(e.Name) == "" {
		return nil, errors.New("name is missing: say whose token it is")
	}
	switch n, err := hex.Decode(t.Hash[:], []byte(e.SHA256[:min(len(e.SHA256), hex.EncodedLen(len(t.Hash)))])); {
	case strings.HasPrefix(e.SHA256, Prefix):
		return nil, errors.New("sha256 is the token itself, which everybody has now who can read the file: make another, " +
			"and write its hash, as `ration token new` prints it")
	case err != nil || n != len(t.Hash) || len(e.SHA256) != hex.EncodedLen(len(t.Hash)):
		return nil, errors.New("sha256 is not the 64 hexadecimal digits of a hash: `ration token new` prints them")
	}
	if len(e.May) == 0 {
		return nil, errors.New("may is missing: say what it permits, of account, read and admin")
	}
	for _, may := range e.May {
		if !slices.Contains([]Right{Account, Read, Admin}, Right(may)) {
			return nil, fmt.Errorf("may %.100q is unknown: use account, read or admin", may)
		}
		t.May = append(t.May, Right(may))
	}
	if slices.Contains(e.Domains, "") {
		return nil, errors.New("domains has an empty name: leave domains out for all")
	}
	for _, text := range e.Subjects {
		s, err := subjectPattern(text)
		if err != nil {
			return nil, err
		}
		t.Subjects = append(t.Subjects, s)
	}
	if t.permits([]Right{Admin}) && len(e.Domains)+len(e.Subjects) > 0 {
		return nil, errors.New("admin is for every domain and subject: leave domains and subjects out, or give a token of " +
			"its own to who administers")
	}
	return t, e.readExpires(t)
}

// subjectPattern reads KEY=VALUE, where a star at the end of VALUE stands for any end.
func subjectPattern(text string) (s engine.SubjectPattern, err error) {
	key, name, ok := strings.Cut(text, "=")
	prefix, many := strings.CutSuffix(name, "*")
	if !ok || key == "" || name == "" || strings.Contains(key+prefix, "*") {
		return s, fmt.Errorf("subjects %.100q is not KEY=VALUE, as user=alice, or user=team-* with one star, at the end", text)
	}
	return engine.SubjectPattern{Key: key, Name: prefix, Prefix: many}, nil
}

func (e *entry) readExpires(t *Token) (err error) {
	if e.Expires == "" {
		return nil
	}
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if t.Expires, err = time.Parse(layout, e.Expires); err == nil {
			return nil
		}
	}
	return fmt.Errorf("expires %.100q is no instant: write it as 2027-01-01, which is its first moment in UTC, or as 2027-01-01T12:00:00Z", e.Expires)
}
