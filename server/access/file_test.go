package access_test

import (
	"strings"
	"testing"

	"github.com/rationhq/ration/server/access"
)

// hash is that of some token.
const hash = "7e8a99fb1c669bae95de05b7acdd7a3cc60b328e9561ff752487846103d439eb"

// Every mistake in a file is named, with the token that it is in, and no secret.
func TestParse(t *testing.T) {
	one := func(rest string) string { return "tokens:\n  - { name: app, sha256: " + hash + ", " + rest + " }\n" }
	for _, c := range []struct{ name, file, want string }{
		{"all that can be said", one("may: [account, read], domains: [llm], subjects: [user=alice, user=team-*], expires: 2027-01-01"), ""},
		{"a word without brackets", one("may: admin, expires: 2027-01-01T12:00:00+01:00"), ""},
		{"upper-case digits", strings.Replace(one("may: read"), hash, strings.ToUpper(hash), 1), ""},
		{"nobody", "tokens: []", ""},
		{"nothing", "", "it has neither `tokens:` nor `certificates:`"},
		{"an empty map", "{}", "it has neither `tokens:` nor `certificates:`"},
		{"no map", "- a", "1:1: it has neither `tokens:` nor `certificates:`"},
		{"no list", "tokens:", "1:8: it has no list in `tokens:`"},
		{"another section", "token: []", "1:1: \"token\" is unknown: the file has `tokens:` and `certificates:`"},
		{"a section twice", "tokens: []\ntokens: []", `2:1: "tokens" stands there twice`},
		{"no entry", "tokens: [ a ]", "1:11: tokens[0]: it is not `{ name: …"},
		{"two documents", "tokens: []\n---\ntokens: []", "more than one document"},
		{"a word that is none", one("may: read, subject: [user=a]"), `2:103: tokens[0] ("app"): field "subject" is unknown`},
		{"no name", "tokens: [ { sha256: " + hash + ", may: read } ]", `tokens[0] (""): name is missing`},
		{"no hash", "tokens: [ { name: a, may: read } ]", "sha256 is not the 64 hexadecimal digits"},
		{"a hash too long", "tokens: [ { name: a, sha256: " + hash + "00, may: read } ]", "sha256 is not the 64 hexadecimal digits"},
		{"no digits", "tokens: [ { name: a, sha256: " + strings.Repeat("x", 64) + ", may: read } ]", "sha256 is not the 64 hexadecimal digits"},
		{"the token itself", "tokens: [ { name: a, sha256: ration_secret, may: read } ]", "sha256 is the token itself"},
		{"no right", one("domains: [llm]"), "may is missing"},
		{"an unknown right", one("may: write"), `may "write" is unknown: use account, read or admin`},
		{"an empty domain", one(`may: read, domains: [""]`), "domains has an empty name"},
		{"no subject", one("may: read, subjects: [alice]"), `subjects "alice" is not KEY=VALUE`},
		{"no domains", one("may: read, domains: []"), "domains is empty: leave it out for all"},
		{"no subjects", one("may: read, subjects: []"), "subjects is empty: leave it out for all"},
		{"no word", one("may: read, expires:"), "it is no word"},
		{"an empty day", one(`may: read, expires: ""`), `expires "" is no instant`},
		{"two names", "tokens: [ { name: [ a, b ], sha256: " + hash + ", may: read } ]", "name is not one word"},
		{"a name twice", "tokens: [ { name: a, name: b, sha256: " + hash + ", may: read } ]", `"name" stands there twice`},
		{"a long name", "tokens: [ { name: " + strings.Repeat("a", 201) + ", sha256: " + hash + ", may: read } ]", "name has 201 bytes: 200 are the most"},
		{"a name on two lines", "tokens: [ { name: \"a\\nb\", sha256: " + hash + ", may: read } ]", "cannot be printed"},
		{"a certificate among tokens", "tokens: [ { name: a, dns: a.example, may: read } ]", "dns is of a certificate: put the entry below `certificates:`"},
		{"two stars", one("may: read, subjects: [user=*a*]"), "is not KEY=VALUE"},
		{"a star in the key", one("may: read, subjects: ['u*=a']"), "is not KEY=VALUE"},
		{"an administrator of one domain", one("may: [read, admin], domains: [llm]"), "admin is for every domain"},
		{"an administrator of subjects", one("may: admin, subjects: [user=a]"), "admin is for every domain"},
		{"no day", one("may: read, expires: tomorrow"), `expires "tomorrow" is no instant`},
		{"the same name", one("may: read") + "  - { name: app, sha256: 00" + hash[2:] + ", may: read }", "another token or certificate has the same name"},
		{"the same token", one("may: read") + "  - { name: b, sha256: " + hash + ", may: read }", `it is the same token as "app"`},
		{"certificates", "certificates:\n  - { name: a, uri: 'spiffe://example/a', may: account }\n  - { name: b, dns: b.example, may: [read], subjects: user=b }\n  - { name: c, common_name: C and sons, may: admin }", ""},
		{"a certificate without a name", "certificates: [ { name: a, may: read } ]", `1:17: certificates[0] ("a"): it names no certificate`},
		{"two names of one", "certificates: [ { name: a, uri: 'spiffe://e/a', dns: a.e, may: read } ]", "it says dns beside uri: a certificate is named by one of them"},
		{"a hash of one", "certificates: [ { name: a, sha256: " + hash + ", may: read } ]", "sha256 is of a token: put the entry below `tokens:`"},
		{"no URI", "certificates: [ { name: a, uri: example/a, may: read } ]", `uri "example/a" is no URI: write it as it stands in the certificate`},
		{"a URI as none has it", "certificates: [ { name: a, uri: 'SPIFFE://e/a', may: read } ]", "is no URI"},
		{"a star in a URI", "certificates: [ { name: a, uri: 'spiffe://e/*', may: read } ]", "has a star: names are compared as they are"},
		{"no DNS name", "certificates: [ { name: a, dns: 'https://a.example', may: read } ]", "is no DNS name"},
		{"an empty common name", "certificates: [ { name: a, common_name: '', may: read } ]", `common_name "" is empty`},
		{"the same certificate", "certificates: [ { name: a, dns: A.example, may: read }, { name: b, dns: a.example, may: admin } ]", `it is the same certificate as "a"`},
		{"the name of a token", one("may: read") + "certificates: [ { name: app, dns: a.example, may: read } ]", "another token or certificate has the same name"},
		{"a certificate for no domain", "certificates: [ { name: a, dns: a.example, may: admin, domains: [ llm ] } ]", "admin is for every domain"},
		{"too large", "tokens: []\n" + strings.Repeat("#", access.MaxFile), "are read"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := access.Parse([]byte(c.file))
			if c.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
			if strings.Contains(err.Error(), "ration_secret") || strings.Contains(err.Error(), hash) {
				t.Errorf("the error tells the secret: %v", err)
			}
		})
	}
}

// All mistakes are told at once.
func TestParseTellsAll(t *testing.T) {
	_, err := access.Parse([]byte("tokens: [ { name: a }, { name: b, sha256: " + hash + " }, { name: c, sha256: " + hash + ", may: read } ]"))
	if err == nil || strings.Count(err.Error(), "\n") != 2 || !strings.Contains(err.Error(), `tokens[1] ("b")`) {
		t.Errorf("got %v", err)
	}
}

// No two tokens are alike, and each is what its hash says.
func TestNewToken(t *testing.T) {
	known := map[string]bool{}
	for range 100 {
		token, digits := access.NewToken()
		if known[token] || known[digits] || !strings.HasPrefix(token, access.Prefix) || len(token) != len(access.Prefix)+43 {
			t.Fatalf("%s, %s", token, digits)
		}
		known[token], known[digits] = true, true
		if l, err := access.Parse([]byte("tokens: [ { name: a, sha256: '" + digits + "', may: read } ]")); err != nil || l.Tokens() != 1 {
			t.Fatal(err)
		}
	}
}

// Whatever a file holds, it is read or refused.
func FuzzParse(f *testing.F) {
	f.Add([]byte("tokens:\n  - { name: app, sha256: " + hash + ", may: [account], domains: [llm], subjects: [user=a*], expires: 2027-01-01 }"))
	f.Add([]byte("tokens: [ &a { name: b, <<: *a } ]"))
	f.Add([]byte("tokens: [ { sha256: [ 1 ] } ]"))
	f.Add([]byte("certificates: [ { name: a, uri: 'spiffe://e/a', may: read }, { name: b, dns: b.e, may: [ admin ] } ]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if l, err := access.Parse(data); err == nil && l == nil {
			t.Error("neither tokens nor an error")
		}
	})
}
