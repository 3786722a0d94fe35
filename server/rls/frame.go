package rls

import (
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
)

// frame is a message as it travels: handlers that read and write their messages by hand take and
// return one.
type frame struct {
	in  mem.Buffer
	out mem.SliceBuffer
}

// Codec is the codec of a server that serves this package: protobuf as ever, but frames pass as they
// are.
type Codec struct{ proto encoding.CodecV2 }

// NewCodec returns the codec for grpc.ForceServerCodecV2.
func NewCodec() Codec { return Codec{proto: encoding.GetCodecV2(proto.Name)} }

// Name implements encoding.CodecV2.
func (c Codec) Name() string { return c.proto.Name() }

// Marshal implements encoding.CodecV2.
func (c Codec) Marshal(v any) (mem.BufferSlice, error) {
	if f, ok := v.(*frame); ok {
		return mem.BufferSlice{f.out}, nil
	}
	return c.proto.Marshal(v)
}

// Unmarshal implements encoding.CodecV2. A frame keeps a reference to the message's memory, which
// its handler frees.
func (c Codec) Unmarshal(data mem.BufferSlice, v any) error {
	if f, ok := v.(*frame); ok {
		f.in = data.MaterializeToBuffer(mem.DefaultBufferPool())
		return nil
	}
	return c.proto.Unmarshal(data, v)
}
