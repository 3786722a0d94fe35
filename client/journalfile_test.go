package client

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/proto"

	rationv1 "github.com/rationhq/ration/gen/ration/v1"
)

// reports are one of each kind.
func reports() []*rationv1.BatchItem {
	caller := &rationv1.Caller{Domain: "llm", Attributes: map[string]string{"user": "a\n\"b\" \u2028"}, Model: "small"}
	return []*rationv1.BatchItem{
		{Report: &rationv1.BatchItem_Settle{Settle: &rationv1.SettleRequest{
			ReservationId: "4c4c", Usage: &rationv1.Usage{InputTokens: 1<<53 - 1}, Caller: caller,
		}}},
		{Report: &rationv1.BatchItem_Record{Record: &rationv1.RecordRequest{Caller: caller, IdempotencyKey: "k", Requests: proto.Int64(0)}}},
		{Report: &rationv1.BatchItem_Release{Release: &rationv1.ReleaseRequest{ReservationId: "632568"}}},
	}
}

func written(t testing.TB) []byte {
	t.Helper()
	var text []byte
	for _, r := range reports() {
		var err error
		if text, err = appendLine(text, r); err != nil {
			t.Fatal(err)
		}
	}
	return text
}

// TestJournalReads: what was written is read, wherever the file was cut off; and a byte that is not as it was written costs
// its line, and no other.
func TestJournalReads(t *testing.T) {
	text, want := written(t), reports()
	for cut := range len(text) + 1 {
		entries, damaged := readLines(text[:cut])
		if len(damaged) > 0 {
			t.Fatalf("cut off at %d: %q is damaged", cut, damaged)
		}
		whole := bytes.Count(text[:cut], []byte{'\n'})
		if len(entries) != whole && (len(entries) != whole+1 || text[cut] != '\n') {
			t.Fatalf("cut off at %d: %d reports, want %d", cut, len(entries), whole)
		}
		for i := range entries {
			if !proto.Equal(entries[i].item, want[i]) {
				t.Fatalf("report %d is %v, want %v", i, entries[i].item, want[i])
			}
		}
	}
	for i := range text {
		broken := bytes.Clone(text)
		broken[i] ^= 1
		entries, damaged := readLines(broken)
		for _, e := range entries {
			same := false
			for _, w := range want {
				same = same || proto.Equal(e.item, w)
			}
			if !same {
				t.Fatalf("with byte %d changed it reads %v", i, e.item)
			}
		}
		if len(entries)+len(damaged) < len(want)-1 {
			t.Fatalf("with byte %d changed it reads %d reports, and %d damaged lines", i, len(entries), len(damaged))
		}
	}
}

// FuzzJournal: whatever lies in a file, reading it ends well, and what is read can be written and read again.
func FuzzJournal(f *testing.F) {
	f.Add(written(f))
	f.Add([]byte("{\"crc32c\":\"00000000\",\"report\":{}}\n"))
	f.Add([]byte("{\"crc32c\":\"a684c7c6\",\"report\":0}\n\n\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, damaged := readLines(data)
		if len(entries)+len(damaged) > bytes.Count(data, []byte{'\n'})+1 {
			t.Fatalf("%d reports and %d damaged lines in %q", len(entries), len(damaged), data)
		}
		var again []byte
		for _, e := range entries {
			again = append(append(again, e.line...), '\n')
		}
		reread, damaged := readLines(again)
		if len(damaged) > 0 || len(reread) != len(entries) {
			t.Fatalf("%d reports of %q, and %d when they are written again", len(entries), data, len(reread))
		}
		for i := range reread {
			if !proto.Equal(reread[i].item, entries[i].item) {
				t.Fatalf("%v is read again as %v", entries[i].item, reread[i].item)
			}
		}
	})
}
