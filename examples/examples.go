// Package examples holds policies to learn from, and hands the program the one that it serves when
// it is given none.
//
// It knows nothing of the rest of the project. Read quickstart.yaml.
package examples

import _ "embed"

// QuickstartDomain is the domain of the example.
const QuickstartDomain = "quickstart"

// Quickstart is quickstart.yaml, for reading only.
//
//go:embed quickstart.yaml
var Quickstart []byte
