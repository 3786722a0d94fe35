package policy

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	// maxFiles bounds how many files a policy has.
	maxFiles = 10_000
	// maxTotal bounds the bytes of all files of a policy together.
	maxTotal = 64 << 20
)

// files is what was read from the paths of a policy, and what went wrong with it.
type files struct {
	sources  []Source
	problems []Problem
}

// readFiles reads the files of a policy as they stood together at one time: where they change while
// they are read, as when Kubernetes swaps a ConfigMap, they are read again.
func readFiles(paths []string, opts Options) *files {
	const attempts = 4
	for i := 1; ; i++ {
		l := list(paths, opts)
		f := l.read()
		if i == attempts || l.same(list(paths, opts)) {
			return f
		}
	}
}

// fingerprint returns a hash of all that was read, names and problems included.
func (f *files) fingerprint() [sha256.Size]byte {
	h := sha256.New()
	add := func(b []byte) {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(b))))
		h.Write(b)
	}
	for _, s := range f.sources {
		add([]byte(s.Name))
		add(s.Data)
	}
	for _, p := range f.problems {
		add([]byte(p.String()))
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// listing is what lies at the paths of a policy.
type listing struct {
	opts     Options
	paths    []string
	files    []listedFile
	dirs     []string // as they were reached
	problems []Problem
	reached  map[string]bool // files and directories, by their real path
	met      int             // how often a policy file was reached
}

type listedFile struct {
	name string      // as it was reached
	info fs.FileInfo // of what it leads to
}

func list(paths []string, opts Options) *listing {
	l := &listing{opts: opts, paths: paths, reached: map[string]bool{}}
	for _, p := range paths {
		before := l.met
		info, err := os.Stat(p)
		switch {
		case err != nil:
			l.problem(p, false, "cannot be read: %v", reason(err))
		case info.IsDir():
			if l.dir(p) && l.met == before && !l.failed() {
				l.problem(p, true, "the directory holds no policy file%s", l.wanted())
			}
		case info.Mode().IsRegular():
			l.file(p, info)
		default:
			l.problem(p, false, "cannot be read: it is neither a file nor a directory")
		}
	}
	if len(paths) > 0 && l.met == 0 && !l.failed() {
		// A directory that is being filled anew must not switch all limits off.
		l.problem(paths[0], false, "there is no policy at all: every request would pass. A file with a domain and no descriptors says that it should")
	}
	return l
}

// wanted says which files of a directory are read.
func (l *listing) wanted() string {
	if l.opts.AllFiles {
		return ""
	}
	return " (*.yaml or *.yml)"
}

// dir lists a directory with all below it, and reports whether it had not been reached before.
func (l *listing) dir(path string) bool {
	if !l.reach(path) {
		return false
	}
	l.dirs = append(l.dirs, path)
	entries, err := os.ReadDir(path)
	if err != nil {
		l.problem(path, false, "cannot be read: %v", reason(err))
		return true
	}
	for _, e := range entries { // sorted by name
		if strings.HasPrefix(e.Name(), ".") && !l.opts.DotFiles {
			continue
		}
		p := filepath.Join(path, e.Name())
		info, err := os.Stat(p)
		switch {
		case err != nil:
			if isYAML(p) {
				l.problem(p, false, "cannot be read: %v", reason(err))
			}
		case info.IsDir():
			l.dir(p)
		case info.Mode().IsRegular() && (l.opts.AllFiles || isYAML(p)):
			l.file(p, info)
		}
	}
	return true
}

func isYAML(path string) bool {
	ext := filepath.Ext(path)
	return ext == ".yaml" || ext == ".yml"
}

func (l *listing) file(path string, info fs.FileInfo) {
	l.met++
	if l.reach(path) {
		l.files = append(l.files, listedFile{path, info})
	}
}

// reach reports whether path leads somewhere that no path before it has led to.
func (l *listing) reach(path string) bool {
	resolved, err := filepath.EvalSymlinks(path)
	if err == nil {
		resolved, err = filepath.Abs(resolved)
	}
	if err != nil {
		l.problem(path, false, "cannot be read: %v", reason(err))
		return false
	}
	first := !l.reached[resolved]
	l.reached[resolved] = true
	return first
}

func (l *listing) problem(file string, warning bool, format string, args ...any) {
	l.problems = append(l.problems, Problem{File: file, Message: fmt.Sprintf(format, args...), Warning: warning})
}

func (l *listing) failed() bool {
	return slices.ContainsFunc(l.problems, func(p Problem) bool { return !p.Warning })
}

// same reports whether nothing has changed from l to m.
func (l *listing) same(m *listing) bool {
	return slices.Equal(l.problems, m.problems) && slices.EqualFunc(l.files, m.files, func(a, b listedFile) bool {
		return a.name == b.name && os.SameFile(a.info, b.info) &&
			a.info.Size() == b.info.Size() && a.info.ModTime().Equal(b.info.ModTime())
	})
}

func (l *listing) read() *files {
	f := &files{problems: slices.Clone(l.problems)}
	fail := func(path, format string, args ...any) {
		f.problems = append(f.problems, Problem{File: path, Message: fmt.Sprintf(format, args...)})
	}
	total := 0
	for i, file := range l.files {
		if i == maxFiles {
			fail(file.name, "is one of more than %d files: too many for a policy", maxFiles)
			break
		}
		data, err := readFile(file.name)
		if err != nil {
			fail(file.name, "cannot be read: %v", reason(err))
			continue
		}
		if total += len(data); total > maxTotal {
			fail(file.name, "brings the policy over %d MB: too much for one", maxTotal>>20)
			break
		}
		f.sources = append(f.sources, Source{Name: file.name, Data: data})
	}
	return f
}

// readFile reads a file, or as much of it as shows that it is too large.
func readFile(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var b bytes.Buffer
	_, err = b.ReadFrom(io.LimitReader(file, maxFileSize+1))
	return b.Bytes(), err
}

// reason returns an error without the path, which the message names already.
func reason(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err
	}
	return err
}
