package access

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/rationhq/ration/engine"
)

// MaxFile is the largest file that is read, in bytes.
const MaxFile = 1 << 20

// maxName is how long a caller's name may be, in bytes: it stands in each row of the audit.
const maxName = 200

// Problem is what is wrong at one place of a file. It holds neither hashes nor what stands in their place.
type Problem struct {
	// Line and Column count from 1.
	Line, Column int
	Text         string
}

// Error implements error: LINE:COLUMN: TEXT.
func (p *Problem) Error() string { return fmt.Sprintf("%d:%d: %s", p.Line, p.Column, p.Text) }

func problemAt(n *yaml.Node, text string, args ...any) error {
	return &Problem{n.Line, n.Column, fmt.Sprintf(text, args...)}
}

// Parse reads a file of tokens and certificates. Its errors are Problems where they have a place: all of them, joined,
// with what is wrong of which caller.
func Parse(data []byte) (*List, error) {
	if len(data) > MaxFile {
		return nil, fmt.Errorf("%d bytes, at most %d are read", len(data), MaxFile)
	}
	const none = "it has neither `tokens:` nor `certificates:`: an empty list, `tokens: []`, lets nobody in"
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var whole yaml.Node
	switch err := decoder.Decode(&whole); {
	case errors.Is(err, io.EOF):
		return nil, errors.New(none)
	case err != nil:
		return nil, err
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("it has more than one document: write one list of `tokens:`, and one of `certificates:`")
	}
	r := &reader{list: newList(), names: make(map[string]bool)}
	root, sections := whole.Content[0], 0
	if root.Kind != yaml.MappingNode {
		return nil, problemAt(root, none)
	}
	r.fields(root, func(key, value *yaml.Node) error {
		prove, ok := map[string]func(*entry) error{"tokens": r.token, "certificates": r.certificate}[key.Value]
		switch {
		case !ok:
			return problemAt(key, "%.100q is unknown: the file has `tokens:` and `certificates:`", key.Value)
		case value.Kind != yaml.SequenceNode:
			return problemAt(value, "it has no list in `%s:`: an empty one, `%[1]s: []`, lets nobody in", key.Value)
		}
		sections++
		for i, n := range value.Content {
			r.entry(fmt.Sprintf("%s[%d]", key.Value, i), n, prove)
		}
		return nil
	})
	if len(r.problems) == 0 && sections == 0 {
		return nil, errors.New(none)
	}
	return r.list, errors.Join(r.problems...)
}

// reader gathers what a file says, and what is wrong with it.
type reader struct {
	list     *List
	names    map[string]bool
	problems []error
}

// fields calls each with every field of a mapping, and keeps what it has against one.
func (r *reader) fields(n *yaml.Node, each func(key, value *yaml.Node) error) {
	seen := make(map[string]bool)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		err := each(key, value)
		if seen[key.Value] {
			err = problemAt(key, "%.100q stands there twice", key.Value)
		}
		seen[key.Value] = true
		if err != nil {
			r.problems = append(r.problems, err)
		}
	}
}

// entry is one caller in the file.
type entry struct {
	node *yaml.Node
	*Caller
	field map[string]*yaml.Node
	words map[string][]string
}

// word returns the text of a field that has one, and where it stands: at the entry where it is missing.
func (e *entry) word(field string) (string, *yaml.Node) {
	if n := e.field[field]; n != nil {
		return e.words[field][0], n
	}
	return "", e.node
}

// entry reads a caller, of whom prove reads by what it is known.
func (r *reader) entry(place string, n *yaml.Node, prove func(*entry) error) {
	e := &entry{node: n, Caller: new(Caller), field: make(map[string]*yaml.Node), words: make(map[string][]string)}
	before := len(r.problems)
	if n.Kind != yaml.MappingNode {
		r.problems = append(r.problems, problemAt(n, "%s: it is not `{ name: …, may: … }`", place))
		return
	}
	r.fields(n, func(key, value *yaml.Node) error {
		list, ok := map[string]bool{
			"name": false, "sha256": false, "uri": false, "dns": false, "common_name": false, "may": true,
			"domains": true, "subjects": true, "expires": false,
		}[key.Value]
		if !ok {
			return problemAt(key, "field %.100q is unknown: use name, may, domains, subjects and expires, with sha256 for a "+
				"token, and uri, dns or common_name for a certificate", key.Value)
		}
		words, err := wordsOf(value)
		if err == nil && !list && (value.Kind != yaml.ScalarNode || len(words) != 1) {
			err = problemAt(value, "%s is not one word", key.Value)
		}
		if err != nil {
			return err
		}
		e.field[key.Value], e.words[key.Value] = value, words
		return nil
	})
	if len(r.problems) == before {
		for _, read := range []func() error{func() error { return r.name(e) }, func() error { return prove(e) }, e.readRights, e.readBounds, e.readExpires} {
			if err := read(); err != nil {
				r.problems = append(r.problems, err)
				break
			}
		}
	}
	if len(r.problems) == before {
		r.names[e.Name] = true
		return
	}
	name, _ := e.word("name")
	for _, err := range r.problems[before:] {
		if p, ok := errors.AsType[*Problem](err); ok {
			p.Text = fmt.Sprintf("%s (%.100q): %s", place, name, p.Text)
		}
	}
}

// wordsOf reads a word, or a list of them.
func wordsOf(n *yaml.Node) ([]string, error) {
	of := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		of = n.Content
	}
	var words []string
	for _, w := range of {
		if w.Kind != yaml.ScalarNode || w.Tag == "!!null" {
			return nil, problemAt(w, "it is no word")
		}
		words = append(words, w.Value)
	}
	return words, nil
}

func (r *reader) name(e *entry) error {
	name, at := e.word("name")
	switch {
	case strings.TrimSpace(name) == "":
		return problemAt(at, "name is missing: say whose token or certificate it is")
	case len(name) > maxName:
		return problemAt(at, "name has %d bytes: %d are the most", len(name), maxName)
	case !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
		return problemAt(at, "name has characters that cannot be printed")
	case r.names[name]:
		return problemAt(at, "another token or certificate has the same name")
	}
	e.Name = name
	return nil
}

// token reads what a token is known by.
func (r *reader) token(e *entry) error {
	for _, field := range []string{"uri", "dns", "common_name"} {
		if n := e.field[field]; n != nil {
			return problemAt(n, "%s is of a certificate: put the entry below `certificates:`", field)
		}
	}
	text, at := e.word("sha256")
	var hash [sha256.Size]byte
	switch n, err := hex.Decode(hash[:], []byte(text[:min(len(text), hex.EncodedLen(len(hash)))])); {
	case strings.HasPrefix(text, Prefix):
		return problemAt(at, "sha256 is the token itself, which everybody has now who can read the file: make another, "+
			"and write its hash, as `ration token new` prints it")
	case err != nil || n != len(hash) || len(text) != hex.EncodedLen(len(hash)):
		return problemAt(at, "sha256 is not the 64 hexadecimal digits of a hash: `ration token new` prints them")
	case r.list.tokens[hash] != nil:
		return problemAt(at, "it is the same token as %.100q", r.list.tokens[hash].Name)
	}
	e.Kind = ByToken
	r.list.tokens[hash] = e.Caller
	return nil
}

// certificate reads which certificate it is.
func (r *reader) certificate(e *entry) error {
	if n := e.field["sha256"]; n != nil {
		return problemAt(n, "sha256 is of a token: put the entry below `tokens:`, or name the certificate by uri, dns or common_name")
	}
	var name *certName
	var at *yaml.Node
	for _, kind := range nameKinds() {
		text, n := e.word(kind)
		switch {
		case n == e.node:
			continue
		case name != nil:
			return problemAt(n, "it says %s beside %s: a certificate is named by one of them", kind, name.kind)
		}
		name, at = &certName{kind, text}, n
	}
	if name == nil {
		return problemAt(e.node, "it names no certificate: say uri (spiffe://example/app), dns or common_name")
	}
	if err := name.check(); err != nil {
		return problemAt(at, "%s %.200q %v", name.kind, name.text, err)
	}
	*name = name.folded()
	if other := r.list.certificates[*name]; other != nil {
		return problemAt(at, "it is the same certificate as %.100q", other.Name)
	}
	e.Kind = ByCertificate
	r.list.certificates[*name] = e.Caller
	return nil
}

// check reports why no certificate could have the name.
func (n *certName) check() error {
	switch n.kind {
	case kindURI:
		u, err := url.Parse(n.text)
		if err != nil || u.Scheme == "" || u.String() != n.text {
			return errors.New("is no URI: write it as it stands in the certificate, as spiffe://example/app")
		}
	case kindDNS:
		if n.text == "" || strings.ContainsAny(n.text, "/: ") {
			return errors.New("is no DNS name: write it as it stands in the certificate, as app.example")
		}
	}
	if strings.TrimSpace(n.text) == "" {
		return errors.New("is empty")
	}
	if strings.Contains(n.text, "*") && n.kind != kindDNS {
		return errors.New("has a star: names are compared as they are, so list each")
	}
	return nil
}

func (e *entry) readRights() error {
	at := e.field["may"]
	if len(e.words["may"]) == 0 {
		return problemAt(e.node, "may is missing: say what it permits, of account, read and admin")
	}
	for _, may := range e.words["may"] {
		if !slices.Contains([]Right{Account, Read, Admin}, Right(may)) {
			return problemAt(at, "may %.100q is unknown: use account, read or admin", may)
		}
		e.May = append(e.May, Right(may))
	}
	return nil
}

func (e *entry) readBounds() error {
	// A list that is there and empty would be read as one that is not: the opposite of what it seems to say.
	for _, field := range []string{"domains", "subjects"} {
		if n := e.field[field]; n != nil && len(e.words[field]) == 0 {
			return problemAt(n, "%s is empty: leave it out for all", field)
		}
	}
	if e.Domains = e.words["domains"]; slices.Contains(e.Domains, "") {
		return problemAt(e.field["domains"], "domains has an empty name: leave domains out for all")
	}
	for _, text := range e.words["subjects"] {
		s, ok := subjectPattern(text)
		if !ok {
			return problemAt(e.field["subjects"],
				"subjects %.100q is not KEY=VALUE, as user=alice, or user=team-* with one star, at the end", text)
		}
		e.Subjects = append(e.Subjects, s)
	}
	if e.permits([]Right{Admin}) && len(e.Domains)+len(e.Subjects) > 0 {
		return problemAt(e.field["may"], "admin is for every domain and subject: leave domains and subjects out, or give a "+
			"token or certificate of its own to who administers")
	}
	return nil
}

// subjectPattern reads KEY=VALUE, where a star at the end of VALUE stands for any end.
func subjectPattern(text string) (s engine.SubjectPattern, ok bool) {
	key, name, ok := strings.Cut(text, "=")
	prefix, many := strings.CutSuffix(name, "*")
	if !ok || key == "" || name == "" || strings.Contains(key+prefix, "*") {
		return s, false
	}
	return engine.SubjectPattern{Key: key, Name: prefix, Prefix: many}, true
}

func (e *entry) readExpires() (err error) {
	text, at := e.word("expires")
	if at == e.node {
		return nil
	}
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if e.Expires, err = time.Parse(layout, text); err == nil {
			return nil
		}
	}
	return problemAt(at, "expires %.100q is no instant: write it as 2027-01-01, which is its first moment in UTC, or as "+
		"2027-01-01T12:00:00Z", text)
}
