package rls

import (
	"bytes"
	"testing"

	"github.com/rationhq/ration/engine"
	"github.com/rationhq/ration/policy"
)

func TestKeysAreNotToldOf(t *testing.T) {
	const key = "sk-0123456789abcdef"
	request := &engine.Request{Domain: "shop", Descriptors: []engine.Descriptor{{Entries: []policy.Entry{
		{Key: "route", Value: "chat"}, {Key: engine.KeyEntry, Value: key},
	}}}}
	metadata, err := encodeMetadata(request, &engine.Decision{Statuses: make([]engine.Status, 1)})
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(metadata, []byte(key)) || !bytes.Contains(metadata, []byte("ration.key=[hidden]")) {
		t.Errorf("the metadata says %q", metadata)
	}
}
