package policy

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// tree creates files, with the directories that they need. A name that ends in a slash is an empty
// directory; content that begins with "-> " is the target of a symbolic link.
func tree(t *testing.T, files map[string]string) (root string) {
	t.Helper()
	root = t.TempDir()
	for name, content := range files {
		path := filepath.Join(root, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		if strings.HasSuffix(name, "/") {
			must(t, os.MkdirAll(path, 0o755))
		} else if target, ok := strings.CutPrefix(content, "-> "); ok {
			must(t, os.Symlink(target, path))
		} else {
			must(t, os.WriteFile(path, []byte(content), 0o644))
		}
	}
	return root
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// onDisk is a policy file with the given domain and nothing in it.
func onDisk(domain string) string { return "domain: " + domain + "\n" }

func TestLoadDirectories(t *testing.T) {
	plain := map[string]string{
		"b.yaml": onDisk("b"), "a.yml": onDisk("a"), "sub/deep/c.yaml": onDisk("c"), "sub/0.yaml": onDisk("0"),
		"notes.txt": "no policy", ".hidden.yaml": onDisk("hidden"), ".git/x.yaml": onDisk("git"), "empty/": "",
	}
	configMap := map[string]string{ // as Kubernetes mounts one
		"..2026_11_21/basic.yaml": onDisk("basic"), "..2026_11_21/more.yaml": onDisk("more"),
		"..data": "-> ..2026_11_21", "basic.yaml": "-> ..data/basic.yaml", "more.yaml": "-> ..data/more.yaml",
	}
	for _, c := range []struct {
		name  string
		files map[string]string
		paths []string
		opts  Options
		want  string
	}{
		{"only YAML, sorted, hidden left out", plain, []string{""}, Options{}, "a.yml b.yaml sub/0.yaml sub/deep/c.yaml"},
		{"hidden too", plain, []string{""}, Options{DotFiles: true},
			".git/x.yaml .hidden.yaml a.yml b.yaml sub/0.yaml sub/deep/c.yaml"},
		{"in the order given", plain, []string{"sub", "b.yaml", "a.yml"}, Options{}, "sub/0.yaml sub/deep/c.yaml b.yaml a.yml"},
		{"a hidden file that is named", plain, []string{".hidden.yaml"}, Options{}, ".hidden.yaml"},
		{"no file twice", plain, []string{"b.yaml", "", "sub", "b.yaml"}, Options{},
			"b.yaml a.yml sub/0.yaml sub/deep/c.yaml"},
		{"every suffix", map[string]string{"a": onDisk("a"), "b.json": onDisk("b"), "c.yaml~": onDisk("c")}, []string{""},
			Options{AllFiles: true}, "a b.json c.yaml~"},
		{"a file that is named, whatever its suffix", map[string]string{"a.conf": onDisk("a")}, []string{"a.conf"}, Options{}, "a.conf"},
		{"a ConfigMap", configMap, []string{""}, Options{}, "basic.yaml more.yaml"},
		{"a file of a ConfigMap", configMap, []string{"more.yaml"}, Options{}, "more.yaml"},
		{"a ConfigMap with hidden files, each read once", configMap, []string{""}, Options{DotFiles: true},
			"..2026_11_21/basic.yaml ..2026_11_21/more.yaml"},
		{"links to directories, also in circles", map[string]string{
			"current": "-> releases/2", "releases/2/config/a.yaml": onDisk("a"), "releases/2/config/loop": "-> ..",
		}, []string{"current/config"}, Options{}, "current/config/a.yaml"},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := tree(t, c.files)
			var paths []string
			for _, p := range c.paths {
				paths = append(paths, filepath.Join(root, p))
			}
			p, warnings, err := Load(paths, c.opts)
			if err != nil || len(warnings) > 0 {
				t.Fatal(err, warnings)
			}
			var got []string
			for _, f := range p.Files() {
				name, err := filepath.Rel(root, f)
				must(t, err)
				got = append(got, name)
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("got  %s\nwant %s", strings.Join(got, " "), c.want)
			}
		})
	}
}

func TestLoadProblems(t *testing.T) {
	root := tree(t, map[string]string{
		"good.yaml":        onDisk("good"),
		"bad/a.yaml":       "domain: [",
		"bad/b.yaml":       "key: x",
		"dangling/a.yaml":  "-> nowhere",
		"dangling/b.other": "-> nowhere",
		"circle/a.yaml":    "-> a.yaml",
		"empty/":           "",
		"text/readme.txt":  "no policy",
	})
	must(t, syscall.Mkfifo(filepath.Join(root, "pipe"), 0o644))
	if _, _, err := Load([]string{filepath.Join(root, "empty")}, Options{}); err == nil || !strings.Contains(err.Error(), "no policy at all") {
		t.Errorf("no file in all: %v, want an error that says so", err)
	}
	for _, c := range []struct {
		name string
		path string
		opts Options
		want string // with the root left out; a warning is marked
	}{
		{"missing", "missing", Options{}, "missing: cannot be read: no such file or directory"},
		{"every bad file", "bad", Options{}, "" +
			"bad/a.yaml:1: error loading config file: yaml: line 1: did not find expected node content\n" +
			"bad/b.yaml: config file cannot have empty domain\n" +
			"warning bad/b.yaml:1:1: `key` means nothing in the top of the file: it belongs in a descriptor"},
		{"a link to nowhere", "dangling", Options{}, "dangling/a.yaml: cannot be read: no such file or directory"},
		{"a link to itself", "circle", Options{}, "circle/a.yaml: cannot be read: too many levels of symbolic links"},
		{"a pipe", "pipe", Options{}, "pipe: cannot be read: it is neither a file nor a directory"},
		{"an empty directory", "empty", Options{}, "warning empty: the directory holds no policy file (*.yaml or *.yml)"},
		{"a directory of other files", "text", Options{}, "warning text: the directory holds no policy file (*.yaml or *.yml)"},
		{"an empty directory, strict", "empty", Options{Strict: true}, "empty: the directory holds no policy file (*.yaml or *.yml)"},
		{"an empty directory of any file", "empty", Options{AllFiles: true}, "warning empty: the directory holds no policy file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, warnings, err := Load([]string{filepath.Join(root, "good.yaml"), filepath.Join(root, c.path)}, c.opts)
			var got []string
			if err != nil {
				got = append(got, err.Error())
			} else if p == nil || p.Domain("good") == nil {
				t.Error("no error, and no policy")
			}
			for _, w := range warnings {
				got = append(got, "warning "+w.String())
			}
			if all := strings.ReplaceAll(strings.Join(got, "\n"), root+"/", ""); all != c.want {
				t.Errorf("got\n%s\nwant\n%s", all, c.want)
			}
		})
	}
}

func TestLoadMergesInTheOrderOfFiles(t *testing.T) {
	rule := "domain: d\ndescriptors: [{key: k, value: '%s', rate_limit: {unit: day, requests_per_unit: 1}}]"
	root := tree(t, map[string]string{
		"2.yaml": fmt.Sprintf(rule, "a*"), "10.yaml": fmt.Sprintf(rule, "*b"), "3.yaml": fmt.Sprintf(rule, "*c"),
	})
	p, _, err := Load([]string{root}, Options{MergeDomains: true})
	must(t, err)
	for value, want := range map[string]string{"ab": "d.k_*b", "ac": "d.k_a*", "c": "d.k_*c"} {
		if m, _ := p.Domain("d").Match([]Entry{{"k", value}}, nil); m.Rule == nil || m.Rule.Path != want {
			t.Errorf("%s: got %v, want %s", value, m.Rule, want)
		}
	}
	if _, _, err := Load([]string{root}, Options{}); err == nil || !strings.Contains(err.Error(), "duplicate domain 'd'") {
		t.Errorf("without merging: %v", err)
	}
}

func TestLoadStopsAtTooMuch(t *testing.T) {
	root := tree(t, map[string]string{"a.yaml": onDisk("a")})
	must(t, os.Truncate(filepath.Join(root, "a.yaml"), maxFileSize+1))
	if _, _, err := Load([]string{root}, Options{}); err == nil || !strings.Contains(err.Error(), "larger than 10 MB") {
		t.Errorf("a large file: %v", err)
	}
	must(t, os.Truncate(filepath.Join(root, "a.yaml"), maxFileSize))
	for i := range maxTotal / maxFileSize {
		name := filepath.Join(root, fmt.Sprint(i, ".yaml"))
		must(t, os.WriteFile(name, nil, 0o644))
		must(t, os.Truncate(name, maxFileSize))
	}
	l := &listing{files: make([]listedFile, maxFiles+1)}
	small := filepath.Join(tree(t, map[string]string{"a.yaml": onDisk("a")}), "a.yaml")
	for i := range l.files {
		l.files[i].name = small
	}
	if f := l.read(); len(f.problems) != 1 || !strings.Contains(f.problems[0].Message, "more than 10000 files") {
		t.Errorf("many files: %v", f.problems)
	}
	if f := readFiles([]string{root}, Options{}); len(f.problems) != 1 || !strings.Contains(f.problems[0].Message, "over 64 MB") {
		t.Errorf("many large files: %v", f.problems)
	}
}

func TestListingsTellChangesApart(t *testing.T) {
	files := map[string]string{"1/a.yaml": onDisk("a"), "2/a.yaml": onDisk("a"), "now": "-> 1", "b.yaml": onDisk("b")}
	for _, c := range []struct {
		name   string
		change func(root string) error
	}{
		{"longer", func(root string) error {
			return os.WriteFile(filepath.Join(root, "b.yaml"), []byte(onDisk("bb")), 0o644)
		}},
		{"later", func(root string) error {
			return os.Chtimes(filepath.Join(root, "b.yaml"), time.Time{}, time.Unix(1, 0))
		}},
		{"added", func(root string) error { return os.WriteFile(filepath.Join(root, "c.yaml"), nil, 0o644) }},
		{"gone", func(root string) error { return os.Remove(filepath.Join(root, "b.yaml")) }},
		{"linked elsewhere", func(root string) error {
			return errors.Join(os.Remove(filepath.Join(root, "now")), os.Symlink("2", filepath.Join(root, "now")))
		}},
	} {
		root := tree(t, files)
		paths := []string{filepath.Join(root, "now"), filepath.Join(root, "b.yaml"), root}
		before := list(paths, Options{})
		if !before.same(list(paths, Options{})) {
			t.Errorf("%s: a listing differs from itself", c.name)
		}
		must(t, c.change(root))
		if before.same(list(paths, Options{})) {
			t.Errorf("%s: not seen", c.name)
		}
	}
}
