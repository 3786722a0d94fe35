package webhook

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"
)

// secretOf returns the text of a secret of n bytes.
func secretOf(n int) string {
	return secretPrefix + base64.StdEncoding.EncodeToString([]byte(strings.Repeat("k", n)))
}

// A secret is one as standardwebhooks.com has it, and several may sign.
func TestParseSecrets(t *testing.T) {
	for _, text := range []string{secretOf(24), secretOf(64) + "\n", "  " + secretOf(32) + "\n" + secretOf(33)} {
		if _, err := ParseSecrets(text); err != nil {
			t.Errorf("%d bytes of text: %v", len(text), err)
		}
	}
	for text, says := range map[string]string{
		"": "is empty", "\n": "is empty", "hunter2-hunter2-hunter2": "whsec_", secretPrefix + "not*base64": "base64",
		secretOf(23): "23 bytes", secretOf(65): "65 bytes", secretOf(32) + " " + secretOf(8): "8 bytes",
	} {
		_, err := ParseSecrets(text)
		if err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "openssl rand") {
			t.Errorf("%.8s…: %v, want it to say %q and how to make one", text, err, says)
			continue
		}
		if secret := strings.TrimSpace(text); secret != "" && strings.Contains(err.Error(), strings.TrimPrefix(secret, secretPrefix)) {
			t.Errorf("the error holds the secret: %v", err)
		}
	}
}

// The example of the specification's text is signed as anybody else would sign it, and nothing prints a secret.
func TestSign(t *testing.T) {
	all, err := ParseSecrets("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		t.Fatal(err)
	}
	got := all[0].sign("msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 0), []byte(`{"test": 2432232314}`))
	if want := "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="; got != want {
		t.Errorf("signed %s, want %s", got, want)
	}
	if printed := fmt.Sprintf("%v %+v %#v %s", all, all[0], all[0], all[0]); strings.Contains(printed, "MfKQ") || strings.Contains(printed, "49") {
		t.Errorf("printed: %s", printed)
	}
}

// A URL has to be one that can be posted to.
func TestParseURL(t *testing.T) {
	for _, text := range []string{"https://example.com/x?y=1", "http://127.0.0.1:8000"} {
		if _, err := ParseURL(text); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	for text, says := range map[string]string{
		"": "neither", "example.com/hook": "neither", "ftp://example.com": "neither", "https://": "no host", "http:///x": "no host", "http://[::1": "no URL",
		"https://:443/secret": "no host",
	} {
		if _, err := ParseURL(text); err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "/secret") {
			t.Errorf("%s: %v, want it to say %q", text, err, says)
		}
	}
}
