package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// limitOf is a policy that limits the descriptor k=v in the domain http, and nothing else.
func limitOf(n int) string {
	return fmt.Sprintf("domain: http\ndescriptors:\n- { key: k, value: v, rate_limit: { unit: day, requests_per_unit: %d } }\n", n)
}

// TestReload changes the policy under a running ration in the ways that people do, and sees the change through Envoy.
func TestReload(t *testing.T) {
	onBothStores(t, func(t *testing.T, store func(testing.TB) string) {
		t.Run("a file", func(t *testing.T) {
			file := policyFile(t, limitOf(100))
			limited := startLimited(t, store(t), file)
			limited.hits(t, 3)
			limited.leaves(t, "97 of 100")

			// A new file takes the place of the old one, as editors do it. What has been counted stays.
			put(t, file+".new", limitOf(50))
			if err := os.Rename(file+".new", file); err != nil {
				t.Fatal(err)
			}
			limited.leaves(t, "47 of 50")

			// The file is written over.
			put(t, file, limitOf(2))
			limited.leaves(t, "0 of 2")
			if got := limited.get(t, "/hit"); got.code != 429 {
				t.Errorf("code %d with a limit below what has been used, want 429", got.code)
			}

			// What is wrong changes nothing, and is told.
			put(t, file, strings.Replace(limitOf(80), "day", "fortnight", 1))
			eventually(t, "ration tells of the error", func() error {
				if out := limited.server.output(); !strings.Contains(out, "fortnight") {
					return fmt.Errorf("not in %q", out)
				}
				return nil
			})
			limited.leaves(t, "0 of 2")
			if err := limited.server.serving(); err != nil {
				t.Errorf("ration after a bad policy: %v", err)
			}

			put(t, file, limitOf(90))
			limited.leaves(t, "86 of 90")
		})

		t.Run("a folder", func(t *testing.T) {
			dir := t.TempDir()
			put(t, filepath.Join(dir, "policy.yaml"), strings.Replace(limitOf(9), "http", "elsewhere", 1))
			limited := startLimited(t, store(t), dir)
			limited.leaves(t, "-")

			added := filepath.Join(dir, "added.yaml")
			put(t, added, limitOf(10))
			limited.leaves(t, "10 of 10")
			if err := os.Remove(added); err != nil {
				t.Fatal(err)
			}
			limited.leaves(t, "-")
		})

		// Kubernetes mounts a ConfigMap as a folder of links to ..data/NAME, where ..data is itself a link, to a folder
		// with a new name for each version. An update exchanges ..data, and then deletes the old version.
		for _, mounted := range []string{"policy.yaml", "."} {
			t.Run("a ConfigMap served as "+mounted, func(t *testing.T) {
				mount := t.TempDir()
				configMap(t, mount, "..2026_01_01", limitOf(100))
				if err := os.Symlink("..data/policy.yaml", filepath.Join(mount, "policy.yaml")); err != nil {
					t.Fatal(err)
				}
				limited := startLimited(t, store(t), filepath.Join(mount, mounted))
				limited.hits(t, 3)
				limited.leaves(t, "97 of 100")
				configMap(t, mount, "..2026_01_02", limitOf(50))
				limited.leaves(t, "47 of 50")
				configMap(t, mount, "..2026_01_03", limitOf(20))
				limited.leaves(t, "17 of 20")
			})
		}
	})
}

// limited is an Envoy with a ration, and a route that shows what the limit of k=v is.
type limited struct {
	*envoy
	server *ration
}

// startLimited serves a policy behind Envoy. There, /hit adds a hit to k=v and /check adds none.
func startLimited(t *testing.T, store, policy string) limited {
	t.Helper()
	withinOneMinute()
	server, behind := startRation(t, store, policy), startUpstream(t)
	b := shipped(t, behind.addr, server.grpc)
	b.virtualHost("limited.test",
		limitedRoute(t, "/hit", `[{ `+kv+` }]`), limitedRoute(t, "/check", `[{ `+kv+`, hits_addend: { number: 0 } }]`))
	return limited{envoy: startEnvoy(t, b), server: server}
}

func (l limited) get(t *testing.T, path string) answer {
	t.Helper()
	return send(t, l.url, request{host: "limited.test", path: path})
}

func (l limited) hits(t *testing.T, n int) {
	t.Helper()
	for range n {
		if got := l.get(t, "/hit"); got.code != 200 {
			t.Fatalf("code %d, want 200", got.code)
		}
	}
}

// leaves waits until the limit is what a policy just written says: "97 of 100", or "-" for none.
func (l limited) leaves(t *testing.T, want string) {
	t.Helper()
	eventually(t, "the limit is "+want, func() error {
		header := l.get(t, "/check").header
		got := "-"
		if header.Get("RateLimit-Limit") != "" {
			got = header.Get("RateLimit-Remaining") + " of " + header.Get("RateLimit-Limit")
		}
		if got != want {
			return fmt.Errorf("it is %s", got)
		}
		return nil
	})
}

// configMap makes a version of a mounted ConfigMap the current one.
func configMap(t *testing.T, mount, version, policy string) {
	t.Helper()
	dir, link := filepath.Join(mount, version), filepath.Join(mount, "..data")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, "policy.yaml"), policy)
	old, _ := os.Readlink(link) // none the first time
	if err := os.Symlink(version, link+"_tmp"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(link+"_tmp", link); err != nil {
		t.Fatal(err)
	}
	if old != "" {
		if err := os.RemoveAll(filepath.Join(mount, old)); err != nil {
			t.Fatal(err)
		}
	}
}

// put writes a file.
func put(t testing.TB, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
