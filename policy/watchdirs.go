package policy

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fsnotify/fsnotify"
)

// dirWatch asks the operating system to tell of changes in the directories that matter to a policy.
type dirWatch struct {
	notify  *fsnotify.Watcher // nil: nothing tells of changes
	broken  error             // why notify is nil, or the error of a directory
	wanted  map[string]names
	watched map[string]fs.FileInfo // what the path was when its watch began
}

// names are those that matter in one directory; nil means all.
type names map[string]bool

func watchDirs(blind bool) *dirWatch {
	d := &dirWatch{watched: map[string]fs.FileInfo{}}
	if !blind {
		d.notify, d.broken = fsnotify.NewWatcher()
	}
	return d
}

func (d *dirWatch) close() {
	if d.notify != nil {
		_ = d.notify.Close() // only stops its own goroutine
	}
}

// events returns where changes are told, and nil where nothing tells of them.
func (d *dirWatch) events() <-chan fsnotify.Event {
	if d.notify == nil {
		return nil
	}
	return d.notify.Events
}

// lost returns where it is told that changes were not told of.
func (d *dirWatch) lost() <-chan error {
	if d.notify == nil {
		return nil
	}
	return d.notify.Errors
}

// concerns reports whether an event is about something that matters.
func (d *dirWatch) concerns(ev fsnotify.Event) bool {
	if _, ok := d.wanted[ev.Name]; ok {
		return true // the directory itself
	}
	in, ok := d.wanted[filepath.Dir(ev.Name)]
	return ok && (in == nil || in[filepath.Base(ev.Name)])
}

// problems says what is not watched.
func (d *dirWatch) problems() []Problem {
	if d.broken == nil {
		return nil
	}
	return []Problem{{
		Message: fmt.Sprintf("changes of the policy may be seen late: %v", d.broken),
		Warning: true,
	}}
}

// cover watches the directories that matter to what was listed, and no others. It reports whether
// that brought new ones.
func (d *dirWatch) cover(l *listing) (more bool) {
	if d.notify == nil {
		return false
	}
	d.broken = nil
	d.wanted = directories(l)
	live := map[string]bool{} // a watch ends with its directory
	for _, dir := range d.notify.WatchList() {
		live[dir] = true
	}
	for dir := range d.watched {
		if _, ok := d.wanted[dir]; !ok {
			d.drop(dir)
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(d.wanted)) {
		info, err := os.Stat(dir)
		if err != nil {
			continue // gone: what has told us of it, or the next poll, leads here again
		}
		if before := d.watched[dir]; before != nil && live[dir] {
			if os.SameFile(before, info) {
				continue
			}
			d.drop(dir) // another one of the same name
		}
		switch err := d.notify.Add(dir); {
		case err == nil:
			d.watched[dir] = info
			more = true
		case !errors.Is(err, fs.ErrNotExist):
			d.broken = fmt.Errorf("%s cannot be watched: %w", dir, err)
		}
	}
	return more
}

func (d *dirWatch) drop(dir string) {
	delete(d.watched, dir)
	_ = d.notify.Remove(dir) // fails if the directory is gone, and its watch with it
}

// directories returns the real paths of all directories in which a change can change the policy:
// those that hold its files, and those that hold a symbolic link on the way to them.
func directories(l *listing) map[string]names {
	t := tracer{found: map[string]names{}}
	for _, p := range l.paths {
		t.trace(p)
	}
	for _, f := range l.files {
		t.trace(f.name)
	}
	for _, p := range l.problems {
		t.trace(p.File)
	}
	for _, p := range l.dirs {
		if dir, ok := t.trace(p); ok {
			t.found[dir] = nil
		}
	}
	return t.found
}

type tracer struct{ found map[string]names }

// trace walks path as the operating system does. It notes every symbolic link on the way, the last
// name, and a name at which the way ends early. It returns the real path, if there is one.
func (t *tracer) trace(path string) (resolved string, ok bool) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", false
	}
	root := filepath.VolumeName(path) + string(filepath.Separator)
	dir, rest := root, split(path[len(root):])
	for links := 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			dir = filepath.Dir(dir)
			continue
		}
		next := filepath.Join(dir, name)
		info, err := os.Lstat(next)
		switch {
		case err != nil:
			t.note(dir, name)
			return "", false
		case info.Mode()&fs.ModeSymlink != 0:
			t.note(dir, name)
			target, err := os.Readlink(next)
			if links++; err != nil || links > 255 {
				return "", false
			}
			if filepath.IsAbs(target) {
				dir = root
			}
			rest = append(split(target), rest...)
		default:
			if len(rest) == 0 {
				t.note(dir, name)
			}
			dir = next
		}
	}
	return dir, true
}

func split(path string) []string { return strings.Split(path, string(filepath.Separator)) }

func (t *tracer) note(dir, name string) {
	in, ok := t.found[dir]
	switch {
	case !ok:
		t.found[dir] = names{name: true}
	case in != nil:
		in[name] = true
	}
}
