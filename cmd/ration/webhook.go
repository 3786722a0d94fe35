package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/server/webhook"
)

// webhookSecret is the variable with the secret. There is no flag with it: whoever is on the machine can read those.
const webhookSecret = envPrefix + "_WEBHOOK_SECRET"

// openWebhook returns what sends events; nil where they are sent nowhere.
func (f *serveFlags) openWebhook(env *environment, e *engine.Engine, log *slog.Logger) (*webhook.Sender, error) {
	secret, _ := env.lookup(webhookSecret)
	switch {
	case f.WebhookURL == "" && f.WebhookSecretFile == "":
		return nil, nil
	case f.WebhookURL == "":
		return nil, misused("%s: there is a secret, and no receiver: say where events are sent, by --webhook-url", env.origin("webhook-secret-file"))
	case secret != "" && f.WebhookSecretFile != "":
		return nil, misused("%s and %s both say the secret: leave one of them out", env.origin("webhook-secret-file"), webhookSecret)
	case secret == "" && f.WebhookSecretFile == "":
		return nil, misused("%s: receivers cannot tell events from forgeries without a signature: put a secret into %s, or into a file "+
			"for --webhook-secret-file; make one by `echo whsec_$(openssl rand -base64 32)`", env.origin("webhook-url"), webhookSecret)
	}
	to, err := webhook.ParseURL(f.WebhookURL)
	if err != nil {
		return nil, misused("%s: %w", env.origin("webhook-url"), err)
	}
	from := webhookSecret
	if f.WebhookSecretFile != "" {
		from = env.origin("webhook-secret-file")
		if secret, err = secretIn(f.WebhookSecretFile); err != nil {
			return nil, misused("%s: %w", from, err)
		}
	}
	secrets, err := webhook.ParseSecrets(secret)
	if err != nil {
		return nil, misused("%s: %w", from, err)
	}
	outbox := e.Outbox()
	if outbox == nil {
		return nil, misused("%s: the store keeps no events", env.origin("webhook-url"))
	}
	return webhook.New(outbox, webhook.Options{URL: to, Secrets: secrets, Log: log}), nil
}

// secretIn reads a small file.
func secretIn(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	const longest = 4 << 10
	text, err := io.ReadAll(io.LimitReader(file, longest+1))
	if err == nil && len(text) > longest {
		err = fmt.Errorf("%s has more than %d bytes, which is no secret", path, longest)
	}
	return string(text), err
}
