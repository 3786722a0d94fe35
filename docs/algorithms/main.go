// Command algorithms draws the pictures of docs/algorithms.md, what each algorithm admits over time, and those of
// docs/lanes.md, who waits in a lane for how long.
//
//	go run ./docs/algorithms        # from the root of the repository; writes docs/algorithms/*.svg
//
// The pictures are not drawings of how things are meant to work: requests are put to package limit, callers to the
// simulation of package lane, and what comes of them is drawn. It knows nothing else of the project. Everything is integer
// arithmetic, so that every machine draws the same bytes, and a test fails if what is committed is not what these
// packages do.
//
// Read pictures.go first.
package main

import (
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	if err := write("docs/algorithms"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func write(folder string) error {
	for _, p := range pictures() {
		if err := os.WriteFile(filepath.Join(folder, p.file), []byte(p.draw()), 0o644); err != nil {
			return fmt.Errorf("write a picture: %w", err)
		}
	}
	return nil
}
