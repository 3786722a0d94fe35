package ration_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/rationhq/ration"

// layer is the place of one package, or of a whole folder, in the architecture.
//
// Packages of the project are named by their folder; a pattern that ends in "/..." stands for the folder and all below
// it, and "..." for everything.
type layer struct {
	// of is the package or packages that this layer is about.
	of string
	// may is all that it may import of the project.
	may []string
	// testsMay is what its tests may import of the project beside that.
	testsMay []string
	// mustNot is what it may not import from outside the project, since it would know what it must not; its tests may.
	mustNot []string
}

// What the lower layers must not know.
var (
	transports = []string{
		"net/http/...", "google.golang.org/grpc/...", "google.golang.org/protobuf/...",
		"github.com/envoyproxy/go-control-plane/...",
	}
	storage      = []string{"github.com/redis/go-redis/..."}
	outsideWorld = []string{
		"context", "io/...", "log/...", "net/...", "os/...", "sync/...", "github.com/...", "google.golang.org/...",
	}
)

// layers lists every package, from the bottom up. The first layer that fits a package is its own.
func layers() []layer {
	return []layer{
		// The root holds documentation and this test.
		{of: "."},
		{of: "gen/..."},
		{of: "examples", testsMay: []string{"engine", "policy", "limit", "store", "store/memory", "store/redis", "store/redis/redistest"}},
		// Stands where a model would. It knows nothing of what stands before it.
		{of: "examples/fakellm"},
		// Seen from outside, as a stranger would: it starts programs, and asks ration over its API.
		{of: "examples/demo", may: []string{"gen/..."}},
		// An application, which has the client and nothing else.
		{of: "examples/lanes", may: []string{"client"}, testsMay: []string{"gen/...", "store/redis/redistest"}},
		// Draws the pictures of the documentation, by the arithmetic itself.
		{of: "docs/algorithms", may: []string{"limit", "lane", "internal/lanesim"}},
		// Vocabulary and arithmetic, pure: it must not know that time passes or that anything can fail to answer.
		{of: "limit", mustNot: outsideWorld},
		// A heap whose items know where they are. It knows nothing.
		{of: "internal/indexed", mustNot: outsideWorld},
		// Who is next in a line, as pure.
		{of: "lane", may: []string{"limit", "internal/indexed"}, testsMay: []string{"internal/lanesim"}, mustNot: outsideWorld},
		// Plays a lane against a clock of its own, as pure.
		{of: "internal/lanesim", may: []string{"lane", "limit"}, mustNot: outsideWorld},
		// How near words are, for messages. It knows nothing.
		{of: "internal/spelling", mustNot: outsideWorld},
		// What tokens cost. It must not know what limits money, nor who asks. The book that ships it reads once, for all.
		{
			of: "price", may: []string{"limit", "internal/spelling"},
			mustNot: slices.DeleteFunc(slices.Clone(outsideWorld), func(pattern string) bool { return pattern == "sync/..." }),
		},
		{of: "price/pricelist", may: []string{"price", "limit"}, mustNot: outsideWorld},
		{of: "price/internal/makebook", may: []string{"price", "price/pricelist"}},
		// What users write. It must not know where counters are kept, nor who asks.
		{of: "policy", may: []string{"limit", "price", "internal/spelling"}, mustNot: slices.Concat(transports, storage)},
		// The storage contract and the stores. They must not know policies, descriptors or transports.
		{of: "store", may: []string{"lane", "limit"}, mustNot: slices.Concat(transports, storage)},
		// Verifies files of a database. It knows nothing.
		{of: "internal/boltfile", mustNot: slices.Concat(transports, storage)},
		{
			of: "store/memory", may: []string{"store", "lane", "limit", "internal/boltfile", "internal/indexed"}, testsMay: []string{"store/storetest"},
			mustNot: slices.Concat(transports, storage),
		},
		{
			of: "store/redis", may: []string{"store", "lane", "limit"}, testsMay: []string{"store/storetest", "store/redis/..."},
			mustNot: transports,
		},
		// Starts Redis servers for tests, of whatever package.
		{of: "store/redis/redistest", mustNot: transports},
		{of: "store/storetest", may: []string{"store", "lane", "limit"}, mustNot: slices.Concat(transports, storage)},
		// Who pays, and the directories of them. They must not know what a tier allows, where counters are, nor transports.
		{
			of: "subject", may: []string{"limit"}, testsMay: []string{"subject/memory", "subject/subjecttest"},
			mustNot: slices.Concat(transports, storage),
		},
		{
			of: "subject/memory", may: []string{"subject", "limit", "internal/boltfile"}, testsMay: []string{"subject/subjecttest"},
			mustNot: slices.Concat(transports, storage),
		},
		{
			of: "subject/redis", may: []string{"subject", "limit"},
			testsMay: []string{"subject/subjecttest", "store/redis/redistest"}, mustNot: transports,
		},
		{of: "subject/subjecttest", may: []string{"subject", "limit"}, mustNot: slices.Concat(transports, storage)},
		// Keeps steps until a store takes them. It must not know what they are about.
		{
			of: "engine/backlog", may: []string{"store", "limit"}, testsMay: []string{"store/memory", "store/redis", "store/redis/redistest"},
			mustNot: slices.Concat(transports, storage),
		},
		// A state machine that is given the time, and knows of nobody whom it guards.
		{of: "engine/breaker", mustNot: slices.Concat(transports, storage, []string{"context", "log/...", "net/...", "os/..."})},
		// Has callers of this process wait in lines. It must not know what they wait for.
		{
			of: "engine/waiting", may: []string{"store", "lane", "limit"},
			// Its tests have whole engines wait, too.
			testsMay: []string{"engine", "policy", "price", "store/memory", "store/redis", "store/redis/redistest"},
			mustNot:  slices.Concat(transports, storage),
		},
		// Hands on what happens. It must not know where that is kept, nor what a limit is.
		{of: "engine/events", may: []string{"policy", "limit"}, mustNot: slices.Concat(transports, storage, []string{"net/...", "os/..."})},
		// Reads headers of providers, pure. It must not know what follows from them.
		{of: "engine/provider", may: []string{"policy", "limit"}, mustNot: outsideWorld},
		// The use cases. They join policy and store, and must not know which store, nor who asks.
		{
			of: "engine", may: []string{
				"engine/backlog", "engine/breaker", "engine/events", "engine/provider", "engine/waiting", "lane", "policy", "price", "store",
				"subject", "limit",
			},
			testsMay: []string{"store/memory", "store/storetest"},
			mustNot:  slices.Concat(transports, storage, []string{"net"}),
		},
		// The transports. They translate to and from the engine, and must not know how a limit works.
		{
			of: "server/...", may: []string{"engine", "engine/events", "engine/provider", "policy", "price", "subject", "limit", "gen/...", "server/..."},
			testsMay: []string{"store", "store/memory", "store/redis/...", "subject/..."}, mustNot: storage,
		},
		// The Go client: it knows the API, and nothing of what is behind it.
		{
			of: "client", may: []string{"gen/..."},
			testsMay: []string{"engine", "policy", "server", "server/health", "store/memory", "subject"}, mustNot: storage,
		},
		// Plans for users, as arithmetic over a policy.
		{
			of: "cmd/ration/capacity", may: []string{"policy", "price", "limit"},
			mustNot: slices.Concat(transports, storage, []string{"context", "io/...", "log/...", "net/...", "os/..."}),
		},
		// The program puts everything together.
		{of: "cmd/ration/...", may: []string{"..."}},
		// Seen from outside: they talk to a running server, as a stranger would.
		{
			of: "envoy/...", may: []string{"gen/...", "envoy/..."},
			testsMay: []string{"server/contract", "store/redis/redistest"},
		},
		{of: "docs", testsMay: []string{"policy", "store/redis/redistest"}},
		{of: "bench/...", may: []string{"gen/...", "bench/..."}},
	}
}

// TestImportDirection reads the imports of every Go file, whatever its build tags, and compares them with layers.
func TestImportDirection(t *testing.T) {
	fset := token.NewFileSet()
	unplaced := map[string]bool{}
	for _, file := range goFiles(t) {
		if pkg := path.Dir(file); !unplaced[pkg] {
			if _, err := layerOf(pkg); err != nil {
				unplaced[pkg] = true
				t.Errorf("%s: %v", file, err)
			}
		}
		if unplaced[path.Dir(file)] {
			continue
		}
		syntax, err := parser.ParseFile(fset, file, nil, parser.ImportsOnly)
		if err != nil {
			t.Errorf("read imports: %v", err)
			continue
		}
		for _, spec := range syntax.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatalf("%s: %v", fset.Position(spec.Pos()), err)
			}
			if err := mayImport(file, imported); err != nil {
				t.Errorf("%s: %v", fset.Position(spec.Pos()), err)
			}
		}
	}
}

// TestImportDirectionRefuses walks through imports that the architecture forbids or, just beside them, allows.
func TestImportDirectionRefuses(t *testing.T) {
	for _, c := range []struct {
		file, imports string
		allowed       bool
	}{
		{"limit/limit.go", "math/bits", true},
		{"limit/limit.go", module + "/store", false},
		{"limit/limit.go", "context", false},
		{"limit/limit.go", "log/slog", false},
		{"limit/limit_test.go", "pgregory.net/rapid", true},
		{"price/rates.go", module + "/limit", true},
		{"price/book.go", module + "/policy", false},
		{"price/book.go", "os", false},
		{"policy/load.go", module + "/limit", true},
		{"policy/prices.go", module + "/price", true},
		{"policy/load.go", module + "/store", false},
		{"store/memory/memory.go", module + "/policy", false},
		{"store/memory/memory.go", "github.com/redis/go-redis/v9", false},
		{"store/memory/memory.go", module + "/store/storetest", false},
		{"store/memory/memory_test.go", module + "/store/storetest", true},
		{"engine/decide.go", module + "/store", true},
		{"engine/decide.go", module + "/store/redis", false},
		{"engine/decide_test.go", module + "/store/memory", true},
		{"engine/decide_test.go", module + "/store/redis", false},
		{"engine/decide.go", "google.golang.org/grpc/codes", false},
		{"server/rls/rls.go", module + "/engine", true},
		{"server/rls/rls.go", module + "/store/memory", false},
		{"cmd/ration/serve.go", module + "/store/redis", true},
		{"bench/load/load.go", module + "/engine", false},
		{"helpers/helpers.go", "fmt", false},
	} {
		err := mayImport(c.file, c.imports)
		if c.allowed && err != nil {
			t.Errorf("%s: %v; want it to be allowed", c.file, err)
		}
		if !c.allowed && err == nil {
			t.Errorf("%s may import %s; want it to be refused", c.file, c.imports)
		}
	}
}

// mayImport returns why the file, named by its path from the root, may not import the package.
func mayImport(file, imported string) error {
	from := path.Dir(file)
	l, err := layerOf(from)
	if err != nil {
		return err
	}
	isTest := strings.HasSuffix(file, "_test.go")
	inside, ok := strings.CutPrefix(imported+"/", module+"/")
	if !ok {
		if !isTest && anyFits(l.mustNot, imported) {
			return fmt.Errorf("%s must not know of %s (layers in architecture_test.go)", from, imported)
		}
		return nil
	}
	inside = strings.TrimSuffix(inside, "/")
	if inside == from || anyFits(l.may, inside) || isTest && anyFits(l.testsMay, inside) {
		return nil
	}
	who := from
	if isTest {
		who = "a test of " + from
	}
	return fmt.Errorf("%s may not import %s (layers in architecture_test.go)", who, inside)
}

// layerOf returns the layer of a package, named by its folder.
func layerOf(pkg string) (layer, error) {
	for _, l := range layers() {
		if fits(l.of, pkg) {
			return l, nil
		}
	}
	return layer{}, fmt.Errorf("package %s has no place yet: add it to layers in architecture_test.go, "+
		"with what it may import", pkg)
}

func anyFits(patterns []string, pkg string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool { return fits(pattern, pkg) })
}

// fits reports whether the pattern stands for the package.
func fits(pattern, pkg string) bool {
	folder, below := strings.CutSuffix(pattern, "/...")
	return pattern == "..." || pkg == folder || below && strings.HasPrefix(pkg, folder+"/")
}

// goFiles returns the Go files of this module, as paths from the root with forward slashes. Folders that the go command
// does not look into are left out: hidden ones, test data, and modules of their own.
func goFiles(t *testing.T) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if name == "." {
				return nil
			}
			if base := entry.Name(); base == "testdata" || base[0] == '.' || base[0] == '_' {
				return fs.SkipDir
			}
			if _, err := os.Stat(filepath.Join(name, "go.mod")); err == nil {
				return fs.SkipDir
			}
			return nil
		}
		if strings.HasSuffix(name, ".go") {
			files = append(files, filepath.ToSlash(name))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// TestDependenciesAreExplained holds docs/dependencies.md to go.mod and to the module files of the tools: everything
// that is required directly stands in the first column of a table there, and nothing else does.
func TestDependenciesAreExplained(t *testing.T) {
	explained := map[string]bool{}
	page, err := os.ReadFile("docs/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(page)) {
		if cell, ok := strings.CutPrefix(line, "| `"); ok {
			name, rest, _ := strings.Cut(cell, "` | ")
			if reason := strings.Trim(rest, " |\n"); reason == "" {
				t.Errorf("docs/dependencies.md lists %s without a reason", name)
			}
			explained[name] = true
		}
	}

	required := map[string]string{}
	for _, r := range readModule(t, "go.mod").Require {
		if !r.Indirect {
			required[r.Path] = "go.mod"
		}
	}
	toolModules, err := filepath.Glob("tools/*/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range toolModules {
		for _, tool := range readModule(t, file).Tool {
			required[tool.Path] = file
		}
	}

	for name, file := range required {
		if !explained[name] {
			t.Errorf("%s requires %s, and docs/dependencies.md does not say why: add a line", file, name)
		}
	}
	for name := range explained {
		if _, ok := required[name]; !ok {
			t.Errorf("docs/dependencies.md explains %s, which no go.mod requires directly: remove the line, "+
				"or run go mod tidy where it is marked as indirect", name)
		}
	}
}

// moduleFile is what is needed here of the go command's JSON form of a go.mod.
type moduleFile struct {
	Require []struct {
		Path     string
		Indirect bool
	}
	Tool []struct{ Path string }
}

func readModule(t *testing.T, file string) moduleFile {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "mod", "edit", "-json", file).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go mod edit -json %s: %v\n%s", file, err, exit.Stderr)
		}
		t.Fatal(err)
	}
	var m moduleFile
	if err := json.Unmarshal(out, &m); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return m
}
