package main

import (
	"context"
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rationhq/ration/store/redis"
	"github.com/rationhq/ration/subject"
	subjectmemory "github.com/rationhq/ration/subject/memory"
	subjectredis "github.com/rationhq/ration/subject/redis"
)

// subjects are the directory of subjects, which lies beside the counters, and the cache that decisions ask.
type subjects struct {
	subject.Directory
	cache *subject.Cache
	// ready says whether the directory can be asked; nil: always.
	ready func(context.Context) error
	// end lets go of what the directory needs.
	end func() error
}

// openSubjects opens the directory in what --store names.
func (f *serveFlags) openSubjects(env *environment) (*subjects, error) {
	s, err := f.openDirectory(env)
	if err != nil {
		return nil, err
	}
	s.cache = subject.NewCache(s.Directory, subject.CacheOptions{})
	return s, nil
}

func (f *serveFlags) openDirectory(env *environment) (*subjects, error) {
	if f.Store != "memory" {
		return f.directoryInRedis(env)
	}
	if f.Data == "" {
		d := subjectmemory.New(subjectmemory.Options{})
		return &subjects{Directory: d, end: d.Close}, nil
	}
	d, err := subjectmemory.Open(f.Data, subjectmemory.Options{})
	if err != nil {
		return nil, err
	}
	return &subjects{Directory: d, end: d.Close}, nil
}

func (f *serveFlags) directoryInRedis(env *environment) (*subjects, error) {
	opts, err := f.redisOptions(env)
	if err != nil {
		return nil, err
	}
	client, err := redis.NewClient(opts)
	if err != nil {
		return nil, err
	}
	d, err := subjectredis.New(client, subjectredis.Options{KeyPrefix: opts.KeyPrefix})
	if err != nil {
		return nil, errors.Join(err, client.Close())
	}
	return &subjects{Directory: d, ready: d.Ready, end: client.Close}, nil
}

// close ends the cache, and lets go of the directory.
func (s *subjects) close() error {
	s.cache.Close()
	return s.end()
}

// subjectMetrics are what the cache of the directory tells.
var subjectMetrics = []struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(*subject.CacheStats) float64
}{
	{
		describe("cache_entries", "Subjects and API keys of which is remembered what the directory said."),
		prometheus.GaugeValue, func(s *subject.CacheStats) float64 { return float64(s.Entries) },
	},
	{
		describe("cache_hits_total", "Times that it was remembered who somebody is."),
		prometheus.CounterValue, func(s *subject.CacheStats) float64 { return float64(s.Hits) },
	},
	{
		describe("cache_loads_total", "Times that the directory of subjects was asked."),
		prometheus.CounterValue, func(s *subject.CacheStats) float64 { return float64(s.Loads) },
	},
	{
		describe("cache_failures_total", "Times that the directory of subjects was asked and did not answer."),
		prometheus.CounterValue, func(s *subject.CacheStats) float64 { return float64(s.Failures) },
	},
	{
		describe("cache_stale_total", "Times that what the directory said last was used since it could not be asked."),
		prometheus.CounterValue, func(s *subject.CacheStats) float64 { return float64(s.Stale) },
	},
	{
		describe("changes_heard", "1 while changes of the directory of subjects are heard of at once."),
		prometheus.GaugeValue, func(s *subject.CacheStats) float64 {
			if s.Live {
				return 1
			}
			return 0
		},
	},
}

func describe(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("ration_subject_"+name, help, nil, nil)
}

// Describe implements prometheus.Collector.
func (s *subjects) Describe(to chan<- *prometheus.Desc) {
	for _, m := range subjectMetrics {
		to <- m.desc
	}
}

// Collect implements prometheus.Collector.
func (s *subjects) Collect(to chan<- prometheus.Metric) {
	stats := s.cache.Stats()
	for _, m := range subjectMetrics {
		to <- prometheus.MustNewConstMetric(m.desc, m.kind, m.value(&stats))
	}
}
