// Package boltfile verifies a file of bbolt before bbolt opens it. It knows nothing else of the project. Read [Walk].
package boltfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
)

const (
	pageHeader  = 16
	elementSize = 16
	metaSize    = 64
	metaMagic   = 0xED0CDAED
	metaVersion = 2

	branchPage = 1
	leafPage   = 2
	// subBucket marks an element of a leaf as a tree of its own.
	subBucket = 1
)

var errPages = errors.New("its pages do not fit together")

// pageFile is a file of pages that are being verified.
type pageFile struct {
	file     *os.File
	pageSize int
	pages    uint64   // how many are in use, or free, but not beyond the end
	seen     []uint64 // one bit for each page: it belongs to something
}

// Walk hands all elements of all parts of a file to each, in order.
//
// It reads the pages without bbolt, which trusts them: a page that is not what it was could make that panic in a
// goroutine of its own, miss records, or write over others later. What Walk has found nothing wrong with, bbolt opens.
// An error of the operating system is an *fs.PathError; any other is about what is in the file, or of each.
func Walk(path string, each func(part string, key, value []byte) error) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	f := &pageFile{file: file}
	root, err := f.readMetas()
	if err != nil {
		return err
	}
	return f.tree(root, nil, nil, 0, func(name []byte, flags uint32, value []byte) error {
		if flags != subBucket || len(value) < pageHeader {
			return fmt.Errorf("it has an entry %.80q", name)
		}
		part := string(name)
		inPart := func(key []byte, flags uint32, value []byte) error {
			if flags != 0 {
				return fmt.Errorf("it has a part %.80q within %.80q", key, part)
			}
			return each(part, key, value)
		}
		if root := binary.NativeEndian.Uint64(value); root != 0 {
			return f.tree(root, nil, nil, 0, inPart)
		}
		return f.leaf(value[pageHeader:], nil, nil, inPart) // it is small, and stands in place
	})
}

// readMetas verifies both pages that say where everything begins, and returns the newer root. bbolt
// makes do with one of them; but the other may have been the newer one, with what was promised last.
func (f *pageFile) readMetas() (root uint64, err error) {
	info, err := f.file.Stat()
	if err != nil {
		return 0, err
	}
	newest := uint64(0)
	for i := range int64(2) {
		page := make([]byte, pageHeader+metaSize)
		if _, err := f.file.ReadAt(page, i*int64(f.pageSize)); err != nil {
			return 0, errors.New("it is too short")
		}
		meta := page[pageHeader:]
		sum := fnv.New64a()
		_, _ = sum.Write(meta[:metaSize-8])
		size := int(binary.NativeEndian.Uint32(meta[8:]))
		switch {
		case binary.NativeEndian.Uint32(meta) != metaMagic || binary.NativeEndian.Uint32(meta[4:]) != metaVersion:
			return 0, errors.New("it is no database of bbolt")
		case binary.NativeEndian.Uint64(meta[metaSize-8:]) != sum.Sum64():
			return 0, fmt.Errorf("the checksum of page %d is wrong", i)
		case size < 1024 || size > 1<<20 || f.pageSize != 0 && size != f.pageSize:
			return 0, errPages
		}
		f.pageSize = size
		if turn := binary.NativeEndian.Uint64(meta[48:]); turn >= newest {
			newest, root, f.pages = turn, binary.NativeEndian.Uint64(meta[16:]), binary.NativeEndian.Uint64(meta[40:])
		}
	}
	if f.pages > uint64(info.Size())/uint64(f.pageSize) {
		return 0, errors.New("its end is missing")
	}
	f.seen = make([]uint64, f.pages/64+1)
	f.seen[0] = 3
	return root, nil
}

// element is called with what a leaf holds.
type element func(key []byte, flags uint32, value []byte) error

// tree verifies all pages below one. Its keys are in low ≤ key < high, where these are not nil.
func (f *pageFile) tree(id uint64, low, high []byte, depth int, each element) error {
	page, err := f.page(id)
	if err != nil {
		return err
	}
	if depth > 64 {
		return errPages
	}
	switch binary.NativeEndian.Uint16(page[8:]) {
	case leafPage:
		return f.leaf(page, low, high, each)
	case branchPage:
		return f.branch(page, low, high, depth, each)
	}
	return errPages
}

// page reads a page with all that overflows it, which must not belong to anything else.
func (f *pageFile) page(id uint64) ([]byte, error) {
	header := make([]byte, pageHeader)
	if id >= f.pages {
		return nil, errPages
	}
	if _, err := f.file.ReadAt(header, int64(id)*int64(f.pageSize)); err != nil {
		return nil, err
	}
	more := uint64(binary.NativeEndian.Uint32(header[12:]))
	if binary.NativeEndian.Uint64(header) != id || id+more >= f.pages {
		return nil, errPages
	}
	for i := id; i <= id+more; i++ {
		if f.seen[i/64]&(1<<(i%64)) != 0 {
			return nil, errPages
		}
		f.seen[i/64] |= 1 << (i % 64)
	}
	page := make([]byte, int(more+1)*f.pageSize)
	if _, err := f.file.ReadAt(page, int64(id)*int64(f.pageSize)); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return page, nil
}

func (f *pageFile) branch(page, low, high []byte, depth int, each element) error {
	count := int(binary.NativeEndian.Uint16(page[10:]))
	if count == 0 || pageHeader+count*elementSize > len(page) {
		return errPages
	}
	at := func(i int) []byte { return page[pageHeader+i*elementSize:] }
	for i := range count {
		key, ok := within(at(i), binary.NativeEndian.Uint32(at(i)), binary.NativeEndian.Uint32(at(i)[4:]))
		if !ok || !inOrder(low, key, high) {
			return errPages
		}
		next := high
		if i+1 < count {
			if next, ok = within(at(i+1), binary.NativeEndian.Uint32(at(i+1)), binary.NativeEndian.Uint32(at(i + 1)[4:])); !ok ||
				bytes.Compare(key, next) >= 0 {
				return errPages
			}
		}
		if err := f.tree(binary.NativeEndian.Uint64(at(i)[8:]), key, next, depth+1, each); err != nil {
			return err
		}
	}
	return nil
}

func (f *pageFile) leaf(page, low, high []byte, each element) error {
	if len(page) < pageHeader || binary.NativeEndian.Uint16(page[8:]) != leafPage {
		return errPages
	}
	count := int(binary.NativeEndian.Uint16(page[10:]))
	if pageHeader+count*elementSize > len(page) {
		return errPages
	}
	var last []byte
	for i := range count {
		at := page[pageHeader+i*elementSize:]
		flags, pos := binary.NativeEndian.Uint32(at), binary.NativeEndian.Uint32(at[4:])
		keySize, size := binary.NativeEndian.Uint32(at[8:]), binary.NativeEndian.Uint32(at[12:])
		both, ok := within(at, pos, keySize+size)
		if !ok || keySize+size < size {
			return errPages
		}
		key := both[:keySize]
		if !inOrder(low, key, high) || i > 0 && bytes.Compare(last, key) >= 0 {
			return errPages
		}
		last = key
		if err := each(key, flags, both[keySize:]); err != nil {
			return err
		}
	}
	return nil
}

// within returns the size bytes that stand pos behind the start of an element.
func within(element []byte, pos, size uint32) ([]byte, bool) {
	end := uint64(pos) + uint64(size)
	if end > uint64(len(element)) {
		return nil, false
	}
	return element[pos:end], true
}

func inOrder(low, key, high []byte) bool {
	return (low == nil || bytes.Compare(low, key) <= 0) && (high == nil || bytes.Compare(key, high) < 0)
}
