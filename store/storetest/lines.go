package storetest

import (
	"context"
	"encoding/binary"
	"testing"

	"github.com/rationhq/ration/lane"
	"github.com/rationhq/ration/store"
)

// RunLines runs what concerns a store that is a store.Lines.
func RunLines(t *testing.T, open Open) {
	run(t, open, []test{
		{"walks through a line", testLineWalk},
		{"lines agree with the model", testLineModel},
		{"lines keep to their bounds", testLineBounds},
		{"a line's time begins anew", testLineRenumbers},
		{"many wait in a line", testLineConcurrent},
		{"a line tells waiters of calls", testLineCalls},
		{"lines refuse what breaks the contract", testLineInvalid},
		{"lines are kept apart", testLinesApart},
	})
}

func linesOf(t testing.TB, s store.Store) store.Lines {
	t.Helper()
	lines, ok := s.(store.Lines)
	if !ok {
		t.Fatalf("%T is no store.Lines", s)
	}
	return lines
}

// lineID makes an ID of a kind of thing and a number. The number comes last, so that IDs sort as these do.
func lineID(kind byte, n int) (id lane.ID) {
	id[0] = kind
	binary.BigEndian.PutUint64(id[8:], uint64(n))
	return id
}

func ticketID(n int) lane.ID  { return lineID('t', n) }
func subjectID(n int) lane.ID { return lineID('s', n) }
func waiterID(n int) lane.ID  { return lineID('w', n) }

// stepIn performs a step in a line, which must succeed.
func stepIn(t reporter, lines store.Lines, name string, spec *lane.Spec, step *lane.Step) lane.Outcome {
	t.Helper()
	out, err := lines.Line(context.Background(), []byte(name), spec, step)
	if err != nil {
		t.Fatalf("%+v: %v", step, err)
	}
	return out
}

// stateOf returns all that a store knows of a line.
func stateOf(t reporter, lines store.Lines, name string) lane.State {
	t.Helper()
	state, err := lines.LineState(context.Background(), []byte(name))
	if err != nil {
		t.Fatalf("the state of %q: %v", name, err)
	}
	return state
}
