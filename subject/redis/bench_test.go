package redis_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	goredis "github.com/redis/go-redis/v9"

	"github.com/rationhq/ration/store/redis/redistest"
	"github.com/rationhq/ration/subject"
	"github.com/rationhq/ration/subject/subjecttest"
)

func user(i int) subject.Ref { return subject.Ref{Domain: "llm", Name: fmt.Sprintf("user-%08d", i)} }

// BenchmarkMiss asks Redis through a cache that knows none of those who come.
func BenchmarkMiss(b *testing.B) {
	server := redistest.Start(b)
	d := newDirectory(b, single(b, server.Addr), "")
	const subjects = 1000
	for i := range subjects {
		if _, err := d.Change(b.Context(), user(i), by, setsTier("pro")); err != nil {
			b.Fatal(err)
		}
	}
	ctx := context.Background()
	for _, callers := range []int{1, 32} {
		b.Run(fmt.Sprint(callers, " callers a core"), func(b *testing.B) {
			c := subject.NewCache(d, subject.CacheOptions{Entries: 64}) // one for each of its parts
			defer c.Close()
			var n atomic.Int64
			b.SetParallelism(callers)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := c.Get(ctx, user(int(n.Add(1)*7919%subjects))); err != nil {
						b.Error(err)
						return
					}
				}
			})
			s := c.Stats()
			b.ReportMetric(float64(s.Loads)/float64(b.N), "loads/op")
		})
	}
}

// BenchmarkChange changes the tier of one subject after the other, and gives each an API key.
func BenchmarkChange(b *testing.B) {
	server := redistest.Start(b)
	d := newDirectory(b, single(b, server.Addr), "")
	b.Run("tier", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			if _, err := d.Change(b.Context(), user(i%1000), by, setsTier(strconv.Itoa(i))); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("API key", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			if _, err := d.Change(b.Context(), user(10_000+i), by, adds(subjecttest.NewKey())); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkMillionSubjects says what a million subjects take in Redis, and how long pages of them take.
//
//	go test -run xxx -bench MillionSubjects ./subject/redis
func BenchmarkMillionSubjects(b *testing.B) {
	const subjects = 1_000_000
	server := redistest.Start(b)
	look := server.Client(b)
	d := newDirectory(b, single(b, server.Addr), "")
	used := func() (bytes float64) {
		info, err := look.Info(b.Context(), "memory").Result()
		if err != nil {
			b.Fatal(err)
		}
		for line := range strings.Lines(info) {
			if value, ok := strings.CutPrefix(strings.TrimSpace(line), "used_memory:"); ok {
				bytes, _ = strconv.ParseFloat(value, 64)
			}
		}
		return bytes
	}
	before := used()
	pipe := look.Pipeline()
	for i := range subjects {
		of := user(i)
		pipe.HSet(b.Context(), fmt.Sprintf("ration:{a%03d}subjects", of.Shard()), of.Encode(),
			`1 {"key":"user","tier":"pro","zone":"Europe/Berlin","attributes":{"org":"acme"}}`)
		pipe.ZAdd(b.Context(), fmt.Sprintf("ration:{a%03d}names|llm", of.Shard()), goredis.Z{Member: of.Name})
		if i%10_000 == 9_999 {
			if _, err := pipe.Exec(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	}
	bytes := (used() - before) / subjects
	b.Run("find", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			if _, found, err := d.Find(b.Context(), user(i*7919%subjects)); !found || err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(bytes, "B/subject")
	})
	b.Run("a page of 100", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			if page, err := d.List(b.Context(), "llm", user(i*7919%(subjects-1000)).Name, 100); len(page) != 100 || err != nil {
				b.Fatal(len(page), err)
			}
		}
	})
}
