package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"

	"go.yaml.in/yaml/v3"
)

const (
	// maxFileSize bounds a policy file. 10 MB hold some 80,000 rules.
	maxFileSize = 10 << 20
	// maxNesting bounds how deep the mappings and lists of a file lie in each other, aliases
	// expanded. A level of descriptors takes two.
	maxNesting = 200
	// maxExpansion bounds how many nodes the aliases of a file add to it.
	maxExpansion = 200_000
)

// parseYAML returns the root of the first document of a file, nil if it is empty; ok is false where
// an error was reported instead.
//
// The tree is safe to walk through its aliases: it has no cycles, and its depth and its size are
// bounded.
func parseYAML(src Source, rep *report) (root *yaml.Node, ok bool) {
	file := place{file: src.Name}
	if len(src.Data) > maxFileSize {
		rep.error(file, "the file is larger than %d MB", maxFileSize>>20)
		return nil, false
	}
	dec := yaml.NewDecoder(bytes.NewReader(src.Data))
	var doc, second yaml.Node
	switch err := decode(dec, &doc); {
	case errors.Is(err, io.EOF):
		return nil, true
	case err != nil:
		// The parser knows lines, and no columns.
		if m := yamlErrorLine.FindStringSubmatch(err.Error()); m != nil {
			file.line, _ = strconv.Atoi(m[1])
		}
		rep.error(file, "error loading config file: %v", err)
		return nil, false
	}
	if decode(dec, &second) == nil && !isEmpty(&second) {
		at := second.Content[0]
		rep.warn(place{src.Name, at.Line, at.Column},
			"a second document in the file is ignored: write one domain per file")
	}
	if isEmpty(&doc) {
		return nil, true
	}
	root = doc.Content[0]
	m := measurement{anchored: map[*yaml.Node]extent{}, left: maxExpansion}
	if _, err := m.measure(root); err != nil {
		rep.error(place{src.Name, m.at.Line, m.at.Column}, "error loading config file: yaml: %v", err)
		return nil, false
	}
	return root, true
}

var yamlErrorLine = regexp.MustCompile(`^yaml: line (\d+): `)

// decode reads the next document. The parser reports mistakes of its own by panicking.
func decode(dec *yaml.Decoder, into *yaml.Node) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("yaml: %v", p)
		}
	}()
	return dec.Decode(into)
}

func isEmpty(doc *yaml.Node) bool {
	return len(doc.Content) == 0 || isNull(doc.Content[0])
}

// measurement finds out what a document grows to when its aliases are expanded, without expanding
// them.
type measurement struct {
	anchored map[*yaml.Node]extent // of the nodes that aliases may name
	left     int                   // how many nodes aliases may still add
	at       *yaml.Node            // where an error lies
}

type extent struct{ nodes, height int }

func (m *measurement) measure(n *yaml.Node) (extent, error) {
	if n.Kind == yaml.AliasNode {
		m.at = n
		e, done := m.anchored[n.Alias]
		if !done {
			return e, fmt.Errorf("anchor '%s' value contains itself", clip(n.Value))
		}
		if m.left -= e.nodes; m.left < 0 {
			return e, errors.New("document contains excessive aliasing")
		}
		return e, nil
	}
	sum := extent{nodes: 1, height: 1}
	for _, c := range n.Content {
		e, err := m.measure(c)
		if err != nil {
			return e, err
		}
		sum.nodes += e.nodes
		sum.height = max(sum.height, e.height+1)
	}
	if sum.height > maxNesting {
		m.at = n
		return sum, fmt.Errorf("nested deeper than %d levels", maxNesting)
	}
	if n.Anchor != "" {
		m.anchored[n] = sum
	}
	return sum, nil
}
