package contract

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
)

// Layout is how policy files lie on the disk and how a change of them is made visible.
type Layout string

const (
	// Plain: files in one directory, which is watched (RUNTIME_WATCH_ROOT=false).
	Plain Layout = ""
	// ConfigMap: as Kubernetes mounts a ConfigMap: each file is a link through a link ..data to a directory, and a
	// change makes a new directory and swaps ..data.
	ConfigMap Layout = "configmap"
	// SymlinkedRoot: RUNTIME_ROOT is a link, which is watched (RUNTIME_WATCH_ROOT=true); a change makes a new tree and
	// swaps the link.
	SymlinkedRoot Layout = "symlinked root"
)

// WriteMode is how a changed file gets its new content.
type WriteMode string

const (
	// WriteMoved: written beside the directory and moved into place. With the other layouts: their own way.
	WriteMoved WriteMode = ""
	// WriteInPlace: the file that is there is truncated and written.
	WriteInPlace WriteMode = "in place"
)

const (
	runtimeSubdirectory = "limits"
	runtimeAppdirectory = "config"

	// probePrefix begins the names of the runner's own domains and files.
	probePrefix = "contract-probe-"
)

// policyDir is a directory of policy files that a server watches. Beside the files of the cases it holds one of the
// runner's own, with a domain that names the generation of the policy: a server that knows it has loaded that
// generation, so nobody has to guess how long a reload takes. Each generation has a file of its own name, moved into
// place last: a server that lists the directory while it changes cannot have the name without all that came before.
type policyDir struct {
	base       string
	layout     Layout
	files      map[string]string
	generation int
	// loaded is the generation that the server was last seen with.
	loaded int
}

func newPolicyDir(base string, layout Layout, files map[string]string) (*policyDir, error) {
	d := &policyDir{base: base, layout: layout, files: maps.Clone(files)}
	if d.files == nil {
		d.files = map[string]string{}
	}
	name, text := probe(0)
	d.files[name] = text
	switch layout {
	case Plain:
		if err := os.MkdirAll(d.dir(), 0o755); err != nil {
			return nil, err
		}
		return d, d.writeAll(d.dir())
	case ConfigMap:
		if err := os.MkdirAll(d.dir(), 0o755); err != nil {
			return nil, err
		}
		return d, d.swapData()
	case SymlinkedRoot:
		return d, d.swapRoot()
	}
	return nil, fmt.Errorf("no such layout: %q", layout)
}

func (d *policyDir) root() string { return filepath.Join(d.base, "root") }

func (d *policyDir) dir() string {
	return filepath.Join(d.root(), runtimeSubdirectory, runtimeAppdirectory)
}

// env tells a server where its policy is.
func (d *policyDir) env() map[string]string {
	watchRoot := "false"
	if d.layout == SymlinkedRoot {
		watchRoot = "true"
	}
	return map[string]string{
		"RUNTIME_ROOT":           d.root(),
		"RUNTIME_SUBDIRECTORY":   runtimeSubdirectory,
		"RUNTIME_APPDIRECTORY":   runtimeAppdirectory,
		"RUNTIME_WATCH_ROOT":     watchRoot,
		"RUNTIME_IGNOREDOTFILES": "true",
	}
}

// probe is the runner's own file of a generation.
func probe(generation int) (name, text string) {
	domain := fmt.Sprintf("%s%d", probePrefix, generation)
	const rules = "descriptors:\n- {key: probe, rate_limit: {unlimited: true}}\n"
	return domain + ".yaml", "domain: " + domain + "\n" + rules
}

// change writes and removes files, the runner's own last, as the next generation. A nil text removes the file.
func (d *policyDir) change(files map[string]*string, mode WriteMode) error {
	oldName, _ := probe(d.generation)
	d.generation++
	newName, newText := probe(d.generation)
	for name, text := range files {
		if text == nil {
			delete(d.files, name)
		} else {
			d.files[name] = *text
		}
	}
	delete(d.files, oldName)
	d.files[newName] = newText

	if d.layout == ConfigMap {
		return d.swapData()
	}
	if d.layout == SymlinkedRoot && mode != WriteInPlace {
		return d.swapRoot()
	}
	write := d.move
	if mode == WriteInPlace {
		write = writeInPlace
	}
	for name, text := range files {
		path := filepath.Join(d.dir(), name)
		if text == nil {
			if err := os.Remove(path); err != nil {
				return err
			}
		} else if err := write(path, *text); err != nil {
			return err
		}
	}
	if err := write(filepath.Join(d.dir(), newName), newText); err != nil {
		return err
	}
	return os.Remove(filepath.Join(d.dir(), oldName))
}

func (d *policyDir) move(path, text string) error {
	fresh := filepath.Join(d.base, "fresh")
	if err := os.WriteFile(fresh, []byte(text), 0o644); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.Rename(fresh, path)
}

func writeInPlace(path, text string) error { return os.WriteFile(path, []byte(text), 0o644) }

func (d *policyDir) writeAll(dir string) error {
	for name, text := range d.files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// swapData does what the kubelet does for a changed ConfigMap.
func (d *policyDir) swapData() error {
	name := fmt.Sprintf("..generation_%d", d.generation)
	if err := os.Mkdir(filepath.Join(d.dir(), name), 0o755); err != nil {
		return err
	}
	if err := d.writeAll(filepath.Join(d.dir(), name)); err != nil {
		return err
	}
	fresh, data := filepath.Join(d.dir(), "..data_tmp"), filepath.Join(d.dir(), "..data")
	if err := os.Symlink(name, fresh); err != nil {
		return err
	}
	old, _ := os.Readlink(data)
	if err := os.Rename(fresh, data); err != nil {
		return err
	}
	for file := range d.files {
		link := filepath.Join(d.dir(), file)
		if _, err := os.Lstat(link); err == nil {
			continue
		}
		if err := os.Symlink(filepath.Join("..data", file), link); err != nil {
			return err
		}
	}
	links, err := os.ReadDir(d.dir())
	if err != nil {
		return err
	}
	for _, link := range links {
		if _, kept := d.files[link.Name()]; !kept && link.Name()[0] != '.' {
			if err := os.Remove(filepath.Join(d.dir(), link.Name())); err != nil {
				return err
			}
		}
	}
	if old == "" {
		return nil
	}
	return os.RemoveAll(filepath.Join(d.dir(), old))
}

func (d *policyDir) swapRoot() error {
	tree := filepath.Join(d.base, fmt.Sprintf("generation_%d", d.generation))
	dir := filepath.Join(tree, runtimeSubdirectory, runtimeAppdirectory)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := d.writeAll(dir); err != nil {
		return err
	}
	fresh := filepath.Join(d.base, "root_tmp")
	if err := os.Symlink(tree, fresh); err != nil {
		return err
	}
	return os.Rename(fresh, d.root())
}
