package policy

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
)

// watched is a Watcher at work and what it has called back.
type watched struct {
	t     *testing.T
	w     *Watcher
	calls chan string   // the domains, or the error
	looks chan struct{} // one for every look, whether or not it has called back
}

// watch starts a watcher that is told of changes and hardly ever looks by itself.
func watch(t *testing.T, opts Options, paths ...string) *watched {
	return start(t, NewWatcher(paths, opts, time.Hour))
}

func start(t *testing.T, w *Watcher) *watched {
	x := &watched{t: t, w: w, calls: make(chan string, 100), looks: make(chan struct{}, 1000)}
	w.looked = func() { x.looks <- struct{}{} }
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.Watch(ctx, func(p *Policy, _ []Problem, err error) { x.calls <- shown(p, err) })
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return x
}

func shown(p *Policy, err error) string {
	if err != nil {
		return "error: " + err.Error()
	}
	var domains []string
	for _, d := range p.Domains() {
		domains = append(domains, d.Name())
	}
	return strings.Join(domains, " ")
}

// next waits for the next call and compares it.
func (x *watched) next(want string) {
	x.t.Helper()
	select {
	case got := <-x.calls:
		start, open := strings.CutSuffix(want, "…")
		if got != want && (!open || !strings.HasPrefix(got, start)) {
			x.t.Fatalf("called back with %q, want %q", got, want)
		}
	case <-time.After(20 * time.Second):
		x.t.Fatalf("never called back with %q", want)
	}
}

// until waits for a call with what is wanted: changes of several steps may be seen on their way.
func (x *watched) until(want string) {
	x.t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		select {
		case got := <-x.calls:
			if got == want {
				return
			}
		case <-deadline:
			x.t.Fatalf("never called back with %q", want)
		}
	}
}

// look waits until the watcher has looked once more.
func (x *watched) look() {
	x.t.Helper()
	select {
	case <-x.looks:
	case <-time.After(20 * time.Second):
		x.t.Fatal("the watcher never looked")
	}
}

// settle forgets the looks so far, so that look waits for one that is yet to end.
func (x *watched) settle() {
	for {
		select {
		case <-x.looks:
		default:
			return
		}
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(content), 0o644))
}

// replace puts a new file in the place of another, as editors and deployment tools do.
func replace(t *testing.T, path, content string) {
	t.Helper()
	write(t, path+".new", content)
	must(t, os.Rename(path+".new", path))
}

// relink makes a symbolic link lead elsewhere in one step.
func relink(t *testing.T, target, path string) {
	t.Helper()
	must(t, os.Symlink(target, path+".new"))
	must(t, os.Rename(path+".new", path))
}

func TestWatchSeesFilesChange(t *testing.T) {
	root := tree(t, map[string]string{"a.yaml": onDisk("a")})
	x := watch(t, Options{}, root)
	x.next("a")

	write(t, filepath.Join(root, "a.yaml"), onDisk("in_place"))
	x.until("in_place")
	replace(t, filepath.Join(root, "a.yaml"), onDisk("replaced"))
	x.next("replaced")
	replace(t, filepath.Join(root, "b.yaml"), onDisk("added"))
	x.next("added replaced")
	must(t, os.Remove(filepath.Join(root, "b.yaml")))
	x.next("replaced")
	must(t, os.Rename(filepath.Join(root, "a.yaml"), filepath.Join(root, "c.yaml")))
	x.next("replaced")
}

func TestWatchSeesASingleFileChange(t *testing.T) {
	root := tree(t, map[string]string{"a.yaml": onDisk("a"), "beside.yaml": onDisk("beside")})
	x := watch(t, Options{}, filepath.Join(root, "a.yaml"))
	x.next("a")
	replace(t, filepath.Join(root, "a.yaml"), onDisk("replaced"))
	x.next("replaced")
	must(t, os.Remove(filepath.Join(root, "a.yaml")))
	x.next("error: …")
	replace(t, filepath.Join(root, "a.yaml"), onDisk("back"))
	x.next("back")
}

func TestWatchSeesDirectoriesChange(t *testing.T) {
	root := tree(t, map[string]string{"config/sub/a.yaml": onDisk("a"), "other/sub/a.yaml": onDisk("other")})
	x := watch(t, Options{}, filepath.Join(root, "config"))
	x.next("a")
	replace(t, filepath.Join(root, "config/sub/a.yaml"), onDisk("below"))
	x.next("below")
	must(t, os.MkdirAll(filepath.Join(root, "config/new/deep"), 0o755))
	replace(t, filepath.Join(root, "config/new/deep/b.yaml"), onDisk("new"))
	x.until("below new")
	must(t, os.RemoveAll(filepath.Join(root, "config/new")))
	x.until("below")

	// The whole directory in the place of another.
	must(t, os.Rename(filepath.Join(root, "config"), filepath.Join(root, "old")))
	must(t, os.Rename(filepath.Join(root, "other"), filepath.Join(root, "config")))
	x.until("other")
	replace(t, filepath.Join(root, "config/sub/a.yaml"), onDisk("later"))
	x.next("later")
}

func TestWatchSeesAConfigMapChange(t *testing.T) {
	files := map[string]string{
		"..1/a.yaml": onDisk("one"), "..1/b.yaml": onDisk("b1"), "..2/a.yaml": onDisk("two"), "..2/b.yaml": onDisk("b2"),
		"..data": "-> ..1", "a.yaml": "-> ..data/a.yaml", "b.yaml": "-> ..data/b.yaml",
	}
	for _, path := range []string{"", "a.yaml"} {
		t.Run("path "+path, func(t *testing.T) {
			root := tree(t, files)
			domains := func(a, b string) string {
				if path != "" {
					return a
				}
				list := []string{a, b}
				slices.Sort(list)
				return strings.Join(list, " ")
			}
			x := watch(t, Options{AllFiles: true}, filepath.Join(root, path))
			x.next(domains("one", "b1"))
			for i := range 3 {
				relink(t, "..2", filepath.Join(root, "..data"))
				x.next(domains("two", "b2"))
				must(t, os.RemoveAll(filepath.Join(root, "..1")))
				must(t, os.Mkdir(filepath.Join(root, "..1"), 0o755))
				one := fmt.Sprint("one", i)
				write(t, filepath.Join(root, "..1/a.yaml"), onDisk(one))
				write(t, filepath.Join(root, "..1/b.yaml"), onDisk("b1"))
				relink(t, "..1", filepath.Join(root, "..data"))
				x.next(domains(one, "b1"))
			}
		})
	}
}

func TestWatchSeesALinkOnTheWayChange(t *testing.T) {
	root := tree(t, map[string]string{
		"releases/1/limits/config/a.yaml": onDisk("one"), "releases/2/limits/config/a.yaml": onDisk("two"),
		"srv/current": "-> ../releases/1",
	})
	x := watch(t, Options{}, filepath.Join(root, "srv/current/limits/config"))
	x.next("one")
	relink(t, "../releases/2", filepath.Join(root, "srv/current"))
	x.next("two")
	replace(t, filepath.Join(root, "releases/2/limits/config/a.yaml"), onDisk("edited"))
	x.next("edited")
	relink(t, filepath.Join(root, "releases/1"), filepath.Join(root, "srv/current")) // an absolute link
	x.next("one")
	replace(t, filepath.Join(root, "releases/1/limits/config/a.yaml"), onDisk("again"))
	x.next("again")
}

func TestWatchSeesAPathAppear(t *testing.T) {
	root := tree(t, map[string]string{"here/": ""})
	x := watch(t, Options{}, filepath.Join(root, "here/config/limits"))
	x.next("error: …")
	must(t, os.MkdirAll(filepath.Join(root, "here/config/limits"), 0o755))
	replace(t, filepath.Join(root, "here/config/limits/a.yaml"), onDisk("a"))
	x.until("a")
}

func TestWatchSeesTheTargetOfALinkAppear(t *testing.T) {
	root := tree(t, map[string]string{"config/a.yaml": "-> ../data/a.yaml", "data/": ""})
	x := watch(t, Options{}, filepath.Join(root, "config"))
	x.next("error: …")
	replace(t, filepath.Join(root, "data/a.yaml"), onDisk("a"))
	x.next("a")
}

// Files that never cease to change are read nevertheless.
func TestWatchDoesNotWaitForever(t *testing.T) {
	root := tree(t, map[string]string{"a.yaml": onDisk("a")})
	x := watch(t, Options{}, root)
	x.next("a")
	deadline := time.After(20 * time.Second)
	for i := 0; ; i++ {
		replace(t, filepath.Join(root, "a.yaml"), onDisk(fmt.Sprint("a", i)))
		select {
		case <-x.calls:
			return
		case <-deadline:
			t.Fatal("never called back")
		case <-time.After(time.Millisecond):
		}
	}
}

// A bad file is told once, not at every look, and so is the return to the content before it.
func TestWatchTellsOfABadFileOnce(t *testing.T) {
	root := tree(t, map[string]string{"a.yaml": onDisk("a"), "b.yaml": onDisk("b")})
	x := watch(t, Options{}, root)
	x.next("a b")
	bad := filepath.Join(root, "b.yaml")
	replace(t, bad, "domain: [")
	x.next("error: " + bad + ":1: error loading config file: yaml: line 1: did not find expected node content")
	x.settle()
	replace(t, bad, "domain: [") // again the same
	x.look()
	replace(t, bad, "nonsense: b")
	x.next("error: " + bad + ": config file cannot have empty domain\n" + bad + ":1:1: config error, unknown key 'nonsense'")
	replace(t, bad, onDisk("b"))
	x.next("a b")
}

func TestWatchIsSilentWithoutAChange(t *testing.T) {
	root := tree(t, map[string]string{"a.yaml": onDisk("a")})
	x := watch(t, Options{}, root)
	x.next("a")
	for range 3 {
		x.settle()
		replace(t, filepath.Join(root, "a.yaml"), onDisk("a"))
		x.look()
	}
	replace(t, filepath.Join(root, "a.yaml"), onDisk("other"))
	x.next("other")
}

func TestWatchLeavesOutWhatLoadReturned(t *testing.T) {
	root := tree(t, map[string]string{"a.yaml": onDisk("a")})
	w := NewWatcher([]string{root}, Options{}, time.Hour)
	p, _, err := w.Load()
	if got := shown(p, err); got != "a" {
		t.Fatal(got)
	}
	x := start(t, w)
	x.look()
	replace(t, filepath.Join(root, "a.yaml"), onDisk("b"))
	x.next("b")
}

func TestReloadCallsBackInAnyCase(t *testing.T) {
	root := tree(t, map[string]string{"a.yaml": onDisk("a")})
	x := watch(t, Options{}, root)
	x.next("a")
	x.w.Reload()
	x.next("a")
}

func TestWatchLooksByItselfWhereNothingTellsOfChanges(t *testing.T) {
	root := tree(t, map[string]string{"a.yaml": onDisk("a")})
	w := NewWatcher([]string{root}, Options{}, 10*time.Millisecond)
	w.blind = true
	x := start(t, w)
	x.next("a")
	replace(t, filepath.Join(root, "a.yaml"), onDisk("b"))
	x.next("b")
}

// Only what can change the policy is watched: the directories of its files, and each link on the way.
func TestWatchedDirectories(t *testing.T) {
	root := tree(t, map[string]string{
		"config/a.yaml": "-> ../data/a.yaml", "config/sub/b.yaml": onDisk("b"), "config/.git/x": "", "data/a.yaml": onDisk("a"),
		"srv/current": "-> ../releases/1", "releases/1/limits/c.yaml": onDisk("c"), "beside/d.yaml": onDisk("d"),
	})
	for _, c := range []struct{ path, want string }{
		{"beside/d.yaml", "beside:[d.yaml]"},
		{"config", ":[config] config/sub:all config:all data:[a.yaml]"},
		{"config/a.yaml", "config:[a.yaml] data:[a.yaml]"},
		{"srv/current/limits", "releases/1/limits:all releases/1:[limits] srv:[current]"},
		{"srv/missing/limits", "srv:[missing]"},
	} {
		var got []string
		for dir, in := range directories(list([]string{filepath.Join(root, c.path)}, Options{})) {
			matters := "all"
			if in != nil {
				matters = fmt.Sprint(slices.Sorted(maps.Keys(in)))
			}
			got = append(got, strings.TrimPrefix(strings.TrimPrefix(dir, root), "/")+":"+matters)
		}
		slices.Sort(got)
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s\ngot  %s\nwant %s", c.path, strings.Join(got, " "), c.want)
		}
	}

	d := dirWatch{wanted: map[string]names{"/some": {"name": true}, "/all": nil}}
	for path, want := range map[string]bool{
		"/some/name": true, "/some/other": false, "/all/other": true, "/else/name": false, "/some": true, "/": false,
	} {
		if got := d.concerns(fsnotify.Event{Name: path, Op: fsnotify.Write}); got != want {
			t.Errorf("%s concerns the policy: %v, want %v", path, got, want)
		}
	}
}

func TestCoverTellsOfNewDirectories(t *testing.T) {
	root := tree(t, map[string]string{"sub/a.yaml": onDisk("a")})
	d := watchDirs(false)
	defer d.close()
	cover := func() bool { return d.cover(list([]string{root}, Options{})) }
	if !cover() || cover() {
		t.Error("new the second time, or not the first time")
	}
	must(t, os.MkdirAll(filepath.Join(root, "new"), 0o755))
	if !cover() || cover() {
		t.Error("a new directory is not told, or told twice")
	}
}
