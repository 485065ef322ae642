package cluster

import (
	"sync/atomic"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/failure"
	"github.com/weftmesh/weft/internal/proxy/upstream"
	"github.com/weftmesh/weft/internal/telemetry"
)

// tally counts what became of a cluster's requests. It outlives the cluster's versions.
type tally struct {
	upstream.Counts
	// Relays is the number of relayed connections now, RetryOverflow that of retries that the limits forbade.
	Relays, RetryOverflow atomic.Int64

	attempts, retries, retriesWell, timeouts, tryTimeouts, overflow atomic.Int64
	classes                                                         [6]atomic.Int64 // of answers, by the status's first digit
}

// Count takes a request that has ended: the attempts made on endpoints, the status that its client was told, and what failed.
func (t *tally) Count(attempts, status int, err *failure.Error) {
	t.attempts.Add(int64(attempts))
	if again := int64(attempts) - 1; again > 0 {
		t.retries.Add(again)
		if err == nil && status < 500 {
			t.retriesWell.Add(1)
		}
	}
	if err == nil || err.Fault() == failure.OfUpstream || err.Kind == failure.Overflow { // as in Envoy our answers in the upstream's place count
		if class := status / 100; class < len(t.classes) {
			t.classes[class].Add(1)
		}
	}
	if err == nil {
		return
	}
	switch err.Kind {
	case failure.UpstreamTimeout:
		t.timeouts.Add(1)
	case failure.TryTimeout:
		t.tryTimeouts.Add(1)
	case failure.Overflow:
		t.overflow.Add(1)
	}
}

// used reports whether there is anything to tell.
func (t *tally) used() bool {
	return t.attempts.Load()+t.Connected.Load()+t.Failed.Load()+t.overflow.Load() > 0
}

// maxStats bounds the clusters on a metrics page.
const maxStats = 500

// Stats appends the counters of the clusters that were used, by Envoy's names.
func (r *Set) Stats(list []telemetry.Stat) []telemetry.Stat {
	shown := 0
	for _, c := range r.all() {
		if !c.Tally.used() && c.names.attempts.Load() == 0 {
			continue
		}
		if shown++; shown > maxStats {
			break
		}
		list = c.stats(list)
	}
	return list
}

func (c *Cluster) stats(list []telemetry.Stat) []telemetry.Stat {
	t := &c.Tally
	add := func(name string, gauge bool, value int64) {
		list = append(list, telemetry.Stat{Scope: "cluster", Instance: c.Conf.Name, Name: name, Gauge: gauge, Value: value})
	}
	connections, pending, requests, _ := c.inUse()
	healthy, ejected, members := int64(0), int64(0), int64(len(c.Balancer.Hosts()))
	for _, h := range c.Balancer.Hosts() {
		if h.Healthy() {
			healthy++
		}
		if h.Ejected() {
			ejected++
		}
	}
	if c.Conf.Discovery == conf.OriginalDst || c.Conf.Discovery == conf.ByHost { // those that were connected to lately
		members = int64(len(c.endpoints()))
		healthy = members
	}
	add("membership_healthy", true, healthy)
	add("membership_total", true, members)
	add("outlier_detection_ejections_active", true, ejected)
	add("outlier_detection_ejections_enforced_total", false, c.Balancer.Ejections())
	add("ssl_connection_error", false, t.HandshakesFailed.Load())
	add("ssl_handshake", false, t.Handshakes.Load())
	add("upstream_cx_active", true, connections+t.Relays.Load())
	add("upstream_cx_connect_fail", false, t.Failed.Load())
	add("upstream_cx_connect_timeout", false, t.TimedOut.Load())
	add("upstream_cx_total", false, t.Connected.Load()+t.Failed.Load())
	for class, name := range []string{2: "upstream_rq_2xx", 3: "upstream_rq_3xx", 4: "upstream_rq_4xx", 5: "upstream_rq_5xx"} {
		if name != "" {
			add(name, false, t.classes[class].Load())
		}
	}
	add("upstream_rq_active", true, requests)
	add("upstream_rq_pending_active", true, pending)
	add("upstream_rq_pending_overflow", false, t.overflow.Load())
	add("upstream_rq_per_try_timeout", false, t.tryTimeouts.Load())
	add("upstream_rq_retry", false, t.retries.Load())
	add("upstream_rq_retry_overflow", false, t.RetryOverflow.Load())
	add("upstream_rq_retry_success", false, t.retriesWell.Load())
	add("upstream_rq_timeout", false, t.timeouts.Load())
	add("upstream_rq_total", false, t.attempts.Load())
	if n := &c.names; named(c.Conf) {
		add("update_attempt", false, n.attempts.Load())
		add("update_empty", false, n.empty.Load())
		add("update_failure", false, n.failures.Load())
		add("update_success", false, n.successes.Load())
	}
	return list
}
