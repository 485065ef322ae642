package collect

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
)

// edge is who called whom.
type edge struct {
	source, sourceNamespace, sourceVersion                string
	destination, destinationNamespace, destinationVersion string
	service, protocol                                     string
	mutualTLS                                             bool
	unsent                                                bool // no instance was chosen
}

// totals are the counters of an edge.
type totals struct {
	requests, errors float64
	bytes            float64
	buckets          map[float64]float64 // cumulative count by upper bound in milliseconds
}

type edgeTotals map[edge]*totals

func (t edgeTotals) at(e edge) *totals {
	v, ok := t[e]
	if !ok {
		v = &totals{buckets: map[float64]float64{}}
		t[e] = v
	}
	return v
}

// edgesOf reads the edges that one proxy reports. The calling side's report is preferred, for it knows the failures that never
// arrived; the called side's is used for callers that have no proxy.
func edgesOf(families map[string]*dto.MetricFamily) edgeTotals {
	t := edgeTotals{}
	each(families["istio_requests_total"], func(m *dto.Metric, l map[string]string) {
		v := t.at(edgeOf(l))
		v.requests += m.GetCounter().GetValue()
		if failed(l) {
			v.errors += m.GetCounter().GetValue()
		}
	})
	each(families["istio_request_duration_milliseconds"], func(m *dto.Metric, l map[string]string) {
		v := t.at(edgeOf(l))
		for _, b := range m.GetHistogram().GetBucket() {
			v.buckets[b.GetUpperBound()] += float64(b.GetCumulativeCount())
		}
	})
	each(families["istio_tcp_connections_opened_total"], func(m *dto.Metric, l map[string]string) {
		v := t.at(edgeOf(l))
		v.requests += m.GetCounter().GetValue()
		if failed(l) {
			v.errors += m.GetCounter().GetValue()
		}
	})
	for _, name := range []string{"istio_tcp_sent_bytes_total", "istio_tcp_received_bytes_total"} {
		each(families[name], func(m *dto.Metric, l map[string]string) {
			t.at(edgeOf(l)).bytes += m.GetCounter().GetValue()
		})
	}
	return t
}

func each(f *dto.MetricFamily, do func(*dto.Metric, map[string]string)) {
	for _, m := range f.GetMetric() {
		l := make(map[string]string, len(m.GetLabel()))
		for _, p := range m.GetLabel() {
			l[p.GetName()] = p.GetValue()
		}
		if l["reporter"] == "source" || l["reporter"] == "destination" && l["source_workload"] == "unknown" {
			do(m, l)
		}
	}
}

// failed says whether the labels stand for an answer that counts as an error: 5xx, no answer at all, or a gRPC status of the
// server's making. What the client did wrong does not count.
func failed(l map[string]string) bool {
	if code := l["response_code"]; code == "0" && l["request_protocol"] != "tcp" || len(code) == 3 && code[0] == '5' {
		return true
	}
	switch l["grpc_response_status"] {
	case "2", "4", "12", "13", "14", "15":
		return true
	}
	if l["request_protocol"] == "tcp" {
		for flag := range strings.SplitSeq(l["response_flags"], ",") {
			switch flag {
			case "UF", "UH", "UO", "NC", "UAEX":
				return true
			}
		}
	}
	return false
}

func edgeOf(l map[string]string) edge {
	known := func(name string) string {
		if l[name] == "unknown" {
			return ""
		}
		return l[name]
	}
	destination := known("destination_workload")
	if destination == "" {
		destination = known("destination_service_name")
	}
	if destination == "" {
		destination = l["destination_service"]
	}
	// The calling side cannot know what the called side made of the connection; it reports "unknown" and the principal it saw.
	policy, unsent := l["connection_security_policy"], known("destination_workload") == ""
	return edge{
		source: l["source_workload"], sourceNamespace: known("source_workload_namespace"), sourceVersion: known("source_version"),
		destination: destination, destinationNamespace: known("destination_workload_namespace"), destinationVersion: known("destination_version"),
		service: l["destination_service"], protocol: l["request_protocol"],
		mutualTLS: policy == "mutual_tls" || policy != "none" && known("destination_principal") != "",
		unsent:    unsent && l["reporter"] == "source" && l["request_protocol"] != "tcp",
	}
}

// addDifference adds what grew between two scrapes of one proxy. A counter that fell was begun anew.
func (t edgeTotals) addDifference(now, before edgeTotals) {
	for e, n := range now {
		b := before[e]
		if b == nil || n.requests < b.requests {
			b = &totals{}
		}
		v := t.at(e)
		v.requests += n.requests - b.requests
		v.errors += max(0, n.errors-b.errors)
		v.bytes += max(0, n.bytes-b.bytes)
		for bound, count := range n.buckets {
			v.buckets[bound] += max(0, count-b.buckets[bound])
		}
	}
}

func (t edgeTotals) clone() edgeTotals {
	c := make(edgeTotals, len(t))
	for e, v := range t {
		w := *v
		w.buckets = maps.Clone(v.buckets)
		c[e] = &w
	}
	return c
}

// moment is what had been counted at a time.
type moment struct {
	at     time.Time
	totals edgeTotals
}

// The history holds a moment a second for the last minute and one every ten seconds before that.
const (
	fineHistory   = time.Minute + 5*time.Second
	coarseStep    = 10 * time.Second
	MaxWindow     = 10 * time.Minute
	coarseHistory = MaxWindow + coarseStep
)

func (c *Collector) remember(now time.Time) {
	c.history = append(c.history, moment{now, c.totals.clone()})
	kept := c.history[:0]
	var lastCoarse time.Time
	for i, m := range c.history {
		switch old := now.Sub(m.at); {
		case i == len(c.history)-1 || old <= fineHistory:
			kept = append(kept, m)
		case old <= coarseHistory && m.at.Sub(lastCoarse) >= coarseStep-c.interval/2:
			kept = append(kept, m)
			lastCoarse = m.at
		}
	}
	clear(c.history[len(kept):])
	c.history = kept
}

// Edge is what happened between two workloads in a window.
type Edge struct {
	Source, SourceNamespace, SourceVersion                string
	Destination, DestinationNamespace, DestinationVersion string
	Service, Protocol                                     string
	MutualTLS                                             bool
	Unsent                                                bool // no request of the edge reached an instance
	Requests                                              float64
	Errors                                                float64
	Bytes                                                 float64
	P50, P95, P99                                         float64 // milliseconds; 0 when unknown
}

// Edges gives what happened in the last window, and the time for which there are samples (at most the window). Edges without a
// request in the window are left out. They are sorted by source, destination and protocol.
func (c *Collector) Edges(window time.Duration) (edges []Edge, covered time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.history) == 0 {
		return nil, 0
	}
	end := c.history[len(c.history)-1]
	start := c.history[0]
	for _, m := range c.history {
		if end.at.Sub(m.at) < window-c.interval/2 {
			break
		}
		start = m
	}
	for e, n := range end.totals {
		b := start.totals[e]
		if b == nil {
			b = &totals{}
		}
		requests := n.requests - b.requests
		if requests <= 0 && n.bytes <= b.bytes {
			continue
		}
		q := quantiles(n.buckets, b.buckets, 0.5, 0.95, 0.99)
		edges = append(edges, Edge{
			e.source, e.sourceNamespace, e.sourceVersion, e.destination, e.destinationNamespace, e.destinationVersion,
			e.service, e.protocol, e.mutualTLS, e.unsent, requests, n.errors - b.errors, n.bytes - b.bytes, q[0], q[1], q[2],
		})
	}
	slices.SortFunc(edges, func(a, b Edge) int {
		return cmp.Or(cmp.Compare(a.Source, b.Source), cmp.Compare(a.Destination, b.Destination), cmp.Compare(a.Protocol, b.Protocol),
			cmp.Compare(a.Service, b.Service), cmp.Compare(a.SourceNamespace, b.SourceNamespace))
	})
	return edges, end.at.Sub(start.at)
}

// quantiles interpolates within the buckets of a cumulative histogram, as PromQL's histogram_quantile does.
func quantiles(now, before map[float64]float64, qs ...float64) []float64 {
	bounds := slices.Sorted(maps.Keys(now))
	out := make([]float64, len(qs))
	if len(bounds) == 0 {
		return out
	}
	count := func(b float64) float64 { return now[b] - before[b] }
	total := count(bounds[len(bounds)-1])
	if total <= 0 {
		return out
	}
	for i, q := range qs {
		rank := q * total
		lower, below := 0.0, 0.0
		for _, b := range bounds {
			if n := count(b); n >= rank {
				if math.IsInf(b, 1) {
					out[i] = lower
				} else {
					out[i] = lower + (b-lower)*(rank-below)/max(n-below, 1e-9)
				}
				break
			}
			lower, below = b, count(b)
		}
	}
	return out
}
