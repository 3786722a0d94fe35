package client

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"

	"google.golang.org/protobuf/encoding/protojson"

	rationv1 "github.com/rationhq/ration/gen/ration/v1"
)

// The form of a journal: a line for each report, {"crc32c":"01234567","report":{…}}. The sum is of the bytes of the
// report as they stand there.

// journalLine is a line of a journal.
type journalLine struct {
	CRC    string          `json:"crc32c"`
	Report json.RawMessage `json:"report"`
}

// appendLine appends the line of a report.
func appendLine(to []byte, item *rationv1.BatchItem) ([]byte, error) {
	loose, err := protojson.Marshal(item)
	if err != nil {
		return to, fmt.Errorf("write a report as JSON: %w", err)
	}
	var report bytes.Buffer
	if err := json.Compact(&report, loose); err != nil {
		return to, fmt.Errorf("write a report as JSON: %w", err)
	}
	to = fmt.Appendf(to, `{"crc32c":"%08x","report":`, sumOf(report.Bytes()))
	return append(append(to, report.Bytes()...), '}', '\n'), nil
}

func sumOf(report []byte) uint32 { return crc32.Checksum(report, crc32.MakeTable(crc32.Castagnoli)) }

// entry is a report that lies in a journal.
type entry struct {
	item   *rationv1.BatchItem
	report json.RawMessage
	line   []byte // all of it, without its end
}

// readLines reads a journal. A last line that was cut off is no report: whoever wrote it was told so, or is dead. Other
// lines that cannot be read are damaged.
func readLines(data []byte) (entries []entry, damaged [][]byte) {
	for len(data) > 0 {
		line, rest, whole := bytes.Cut(data, []byte{'\n'})
		data = rest
		e, err := readLine(line)
		switch {
		case err == nil:
			entries = append(entries, e)
		case whole && len(line) > 0:
			damaged = append(damaged, line)
		}
	}
	return entries, damaged
}

func readLine(line []byte) (entry, error) {
	var l journalLine
	if err := json.Unmarshal(line, &l); err != nil {
		return entry{}, err
	}
	if want := fmt.Sprintf("%08x", sumOf(l.Report)); l.CRC != want {
		return entry{}, fmt.Errorf("its sum is %q, and should be %s", l.CRC, want)
	}
	item := &rationv1.BatchItem{}
	// What a newer release has written is carried out as far as this one knows it.
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(l.Report, item); err != nil {
		return entry{}, err
	}
	if item.GetReport() == nil {
		return entry{}, errors.New("it reports nothing")
	}
	return entry{item, l.Report, line}, nil
}
