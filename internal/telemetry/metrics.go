// Package telemetry counts and logs what passes through a proxy, in Istio's metric names and labels and Envoy's log format.
//
// Labels are resolved once per pair of workloads (an Edge) and once per kind of answer (a series within it); after that a
// request costs some atomic additions. Nothing here blocks a request and nothing grows without bound.
package telemetry

import (
	"sync"
	"sync/atomic"
	"time"
)

// Reporter says which end of a call measured it.
type Reporter string

// The reporters.
const (
	FromSource      Reporter = "source"
	FromDestination Reporter = "destination"
)

// Workload is one end of a call as labels see it. Empty fields are reported as "unknown".
type Workload struct {
	Workload, Namespace, Principal, App, Version, Service, Revision, Cluster string
}

// EdgeKey is all that distinguishes one caller-callee pair from another.
type EdgeKey struct {
	Reporter            Reporter
	Source, Destination Workload
	// Host is destination_service ("reviews.default.svc.cluster.local"); ServiceName and ServiceNamespace are its parts.
	Host, ServiceName, ServiceNamespace string
	// Protocol is "http", "grpc" or "tcp".
	Protocol string
	// Security is "mutual_tls" or "none" where the destination reports, and "unknown" where the source does, as in Istio.
	Security string
}

// Metrics is the set of a proxy's metrics. Its methods may be called from any goroutine.
type Metrics struct {
	limit int64 // series at most; set once

	series  atomic.Int64
	refused atomic.Uint64

	mu       sync.Mutex
	edges    map[EdgeKey]*Edge
	overflow *Edge
	extra    []func(*Page)
}

// DefaultSeries bounds the answer series of a proxy (each has three histograms).
const DefaultSeries = 2000

// New makes an empty set. limit bounds the series; 0 means DefaultSeries. What comes beyond is counted on series whose labels
// are all "other", and weft_series_refused_total says how often.
func New(limit int) *Metrics {
	if limit <= 0 {
		limit = DefaultSeries
	}
	m := &Metrics{limit: int64(limit), edges: map[EdgeKey]*Edge{}}
	const o = "other"
	w := Workload{o, o, o, o, o, o, o, o}
	m.overflow = &Edge{metrics: m, key: EdgeKey{FromSource, w, w, o, o, o, o, o}}
	return m
}

// Add lets f write further metrics whenever the page is made.
func (m *Metrics) Add(f func(*Page)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.extra = append(m.extra, f)
}

// Edge gives the counters of a pair. Keep what it returns: looking it up costs more than counting.
func (m *Metrics) Edge(k EdgeKey) *Edge {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.edges[k]; e != nil {
		return e
	}
	if int64(len(m.edges)) >= m.limit {
		m.refused.Add(1)
		return m.overflow
	}
	e := &Edge{metrics: m, key: k}
	m.edges[k] = e
	return e
}

// Edge counts the calls of one pair.
type Edge struct {
	metrics *Metrics
	key     EdgeKey

	answers atomic.Pointer[[]*answers] // copied on growth; mu is held by who grows it
	mu      sync.Mutex

	opened, closed, sent, received atomic.Uint64
	tcp                            atomic.Bool   // something was counted as TCP
	asked, answered                atomic.Uint64 // messages of gRPC
}

// Answer is how a request ended.
type Answer struct {
	Code  int    // 0 when the connection ended before an answer
	Flags string // response flags, "-" for none; one of few constant strings
	GRPC  string // grpc-status, empty for other protocols
}

// answers is one series: all requests of an edge with the same Answer.
type answers struct {
	Answer
	count                       atomic.Uint64
	duration, request, response histogram
}

// Request counts a finished request. Sizes are in bytes. It does not allocate once the answer has been seen.
func (e *Edge) Request(a Answer, took time.Duration, request, response int64) {
	s := e.find(a)
	if s == nil {
		s = e.grow(a)
	}
	s.count.Add(1)
	s.duration.observe(float64(took) / float64(time.Millisecond))
	s.request.observe(float64(request))
	s.response.observe(float64(response))
}

func (e *Edge) find(a Answer) *answers {
	list := e.answers.Load()
	if list == nil {
		return nil
	}
	for _, s := range *list {
		if s.Answer == a {
			return s
		}
	}
	return nil
}

func (e *Edge) grow(a Answer) *answers {
	e.mu.Lock()
	if s := e.find(a); s != nil {
		e.mu.Unlock()
		return s
	}
	if e != e.metrics.overflow && e.metrics.series.Add(1) > e.metrics.limit {
		e.mu.Unlock()
		e.metrics.series.Add(-1)
		e.metrics.refused.Add(1)
		other := e.metrics.overflow
		if s := other.find(Answer{}); s != nil {
			return s
		}
		return other.grow(Answer{})
	}
	defer e.mu.Unlock()
	s := &answers{Answer: a}
	var next []*answers
	if list := e.answers.Load(); list != nil {
		next = append(next, *list...)
	}
	next = append(next, s)
	e.answers.Store(&next)
	return s
}

// Messages counts messages of gRPC: those of requests, and those of responses.
func (e *Edge) Messages(request, response int64) {
	e.asked.Add(uint64(request))
	e.answered.Add(uint64(response))
}

// Opened counts a connection that is relayed without HTTP.
func (e *Edge) Opened() {
	e.tcp.Store(true)
	e.opened.Add(1)
}

// Closed counts its end, with the bytes sent to the client and received from it.
func (e *Edge) Closed(sent, received int64) {
	e.closed.Add(1)
	e.sent.Add(uint64(sent))
	e.received.Add(uint64(received))
}

// bounds are the upper bounds of all of Istio's histograms (Envoy's default buckets), for milliseconds and for bytes.
var bounds = [...]float64{0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 300000, 600000, 1800000, 3600000}

// histogram counts by bucket; the last bucket is for what is above all bounds.
type histogram struct {
	buckets [len(bounds) + 1]atomic.Uint64
	sum     atomic.Uint64 // in thousandths, so that it can be added to atomically
}

func (h *histogram) observe(v float64) {
	lo, hi := 0, len(bounds)
	for lo < hi {
		if mid := (lo + hi) / 2; v <= bounds[mid] {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	h.buckets[lo].Add(1)
	h.sum.Add(uint64(v * 1000))
}
