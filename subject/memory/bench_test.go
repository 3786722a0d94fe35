package memory_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/rationhq/ration/subject"
	"github.com/rationhq/ration/subject/memory"
	"github.com/rationhq/ration/subject/subjecttest"
)

// BenchmarkMillionSubjects says what a million subjects take in memory that have a tier, a time zone, an attribute and
// an API key each; and how long it takes to make them, to find one, and to list a page.
//
//	go test -run xxx -bench MillionSubjects -benchtime 1x ./subject/memory
func BenchmarkMillionSubjects(b *testing.B) {
	const subjects = 1_000_000
	ctx := context.Background()
	for _, withKey := range []bool{false, true} {
		b.Run(fmt.Sprintf("API keys %v", withKey), func(b *testing.B) {
			for range b.N {
				before := heap()
				d := memory.New(memory.Options{})
				for i := range subjects {
					_, err := d.Change(ctx, user(i), by, func(s *subject.Subject) error {
						s.Key, s.Tier, s.Zone = "user", "pro", "Europe/Berlin"
						s.Attributes = map[string]string{"org": "acme"}
						if withKey {
							s.APIKeys = []subject.APIKey{{Hash: subjecttest.NewKey(), Created: 1_763_000_000_000_000}}
						}
						return nil
					})
					if err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/subjects, "ns/change")
				grown := heap() - before
				b.ReportMetric(float64(grown)/subjects, "B/subject")
				b.ReportMetric(float64(grown)/1e6, "MB")
				runtime.KeepAlive(d)
			}
		})
	}
}

// BenchmarkFind finds one of a million subjects.
func BenchmarkFind(b *testing.B) {
	d := memory.New(memory.Options{})
	for i := range 1_000_000 {
		set(b, d, user(i), "pro")
	}
	ctx := context.Background()
	b.Run("one", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			if _, found, err := d.Find(ctx, user(i*7919%1_000_000)); !found || err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("a page of 100", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			if page, err := d.List(ctx, "llm", user(i*7919%999_000).Name, 100); len(page) != 100 || err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkOpen opens a file with a million subjects.
//
//	go test -run xxx -bench Open -benchtime 1x ./subject/memory
func BenchmarkOpen(b *testing.B) {
	const subjects = 1_000_000
	dir := b.TempDir()
	d := openDir(b, dir)
	if err := d.Close(); err != nil {
		b.Fatal(err)
	}
	fill(b, dir, subjects)
	info, err := os.Stat(filepath.Join(dir, memory.FileName))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		d, err := memory.Open(dir, memory.Options{})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(info.Size())/subjects, "B/subject")
		if err := d.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// fill writes subjects into an empty file at once: one by one would measure the disk.
func fill(b *testing.B, dir string, subjects int) {
	b.Helper()
	var sum uint64
	inFile(b, dir, func(tx *bbolt.Tx) error {
		part := tx.Bucket([]byte("records"))
		part.FillPercent = 0.9
		for i := range subjects {
			key := "s" + user(i).Encode()
			value := record(key, `1 {"key":"user","tier":"pro","zone":"Europe/Berlin","attributes":{"org":"acme"}}`)
			sum += uint64(sumOf(value))
			if err := part.Put([]byte(key), value); err != nil {
				return err
			}
		}
		return tx.Bucket([]byte("meta")).Put([]byte("tally"), tallyOf(uint64(subjects), sum))
	})
}

func user(i int) subject.Ref { return subject.Ref{Domain: "llm", Name: fmt.Sprintf("user-%08d", i)} }

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
