package clusters

import (
	"cmp"
	"encoding/hex"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/decode/walk"
)

func (d *decoder) healthCheck(m *corev3.HealthCheck) conf.HealthCheck {
	d.Only(m, "timeout", "interval", "initial_jitter", "interval_jitter", "interval_jitter_percent", "unhealthy_threshold", "healthy_threshold",
		"http_health_check", "tcp_health_check", "grpc_health_check", "no_traffic_interval", "no_traffic_healthy_interval", "unhealthy_interval",
		"unhealthy_edge_interval", "healthy_edge_interval", "always_log_health_check_failures", "always_log_health_check_success",
		// Without effect: connections of checks are never kept.
		"reuse_connection")
	h := conf.HealthCheck{
		Timeout: d.Required("timeout", m.GetTimeout()), Interval: d.Required("interval", m.GetInterval()),
		InitialJitter: d.Duration("initial_jitter", m.GetInitialJitter()), IntervalJitter: d.Duration("interval_jitter", m.GetIntervalJitter()),
		JitterPercent: m.GetIntervalJitterPercent(), NoTraffic: cmp.Or(d.Duration("no_traffic_healthy_interval", m.GetNoTrafficHealthyInterval()), d.Duration("no_traffic_interval", m.GetNoTrafficInterval())),
		Unhealthy: d.Duration("unhealthy_interval", m.GetUnhealthyInterval()), UnhealthyEdge: d.Duration("unhealthy_edge_interval", m.GetUnhealthyEdgeInterval()),
		HealthyEdge:        d.Duration("healthy_edge_interval", m.GetHealthyEdgeInterval()),
		UnhealthyThreshold: m.GetUnhealthyThreshold().GetValue(), HealthyThreshold: m.GetHealthyThreshold().GetValue(),
	}
	if h.UnhealthyThreshold == 0 || h.HealthyThreshold == 0 {
		d.Fail("unhealthy_threshold and healthy_threshold: are required")
	}
	switch c := m.GetHealthChecker().(type) {
	case *corev3.HealthCheck_HttpHealthCheck_:
		d.At("http_health_check", func() { h.HTTP = d.httpCheck(c.HttpHealthCheck) })
	case *corev3.HealthCheck_TcpHealthCheck_:
		d.At("tcp_health_check", func() { h.TCP = d.tcpCheck(c.TcpHealthCheck) })
	case *corev3.HealthCheck_GrpcHealthCheck_:
		d.At("grpc_health_check", func() {
			d.Only(c.GrpcHealthCheck, "service_name", "authority")
			h.GRPC = &conf.GRPCCheck{Service: c.GrpcHealthCheck.GetServiceName(), Authority: c.GrpcHealthCheck.GetAuthority()}
		})
	default:
		d.Fail("health_checker: is required")
	}
	return h
}

func (d *decoder) httpCheck(m *corev3.HealthCheck_HttpHealthCheck) *conf.HTTPCheck {
	d.Only(m, "host", "path", "method", "expected_statuses", "retriable_statuses")
	h := &conf.HTTPCheck{Host: m.GetHost(), Path: m.GetPath(), Method: "GET"}
	if m.GetMethod() != corev3.RequestMethod_METHOD_UNSPECIFIED {
		h.Method = m.GetMethod().String()
	}
	if h.Path == "" || h.Path[0] != '/' {
		d.At("path", func() { d.Fail("%q does not begin with a slash", h.Path) })
	}
	if h.Method == "CONNECT" {
		d.At("method", func() { d.Fail("CONNECT cannot be checked with") })
	}
	ranges := func(field string, list []*typev3.Int64Range) (out []conf.StatusRange) {
		walk.Each(d.Walk, field, list, func(r *typev3.Int64Range) {
			if r.GetStart() < 100 || r.GetEnd() > 600 || r.GetStart() >= r.GetEnd() {
				d.Fail("%d to %d is no range of statuses", r.GetStart(), r.GetEnd())
			}
			out = append(out, conf.StatusRange{Start: int(r.GetStart()), End: int(r.GetEnd())})
		})
		return out
	}
	h.Expected, h.Retriable = ranges("expected_statuses", m.GetExpectedStatuses()), ranges("retriable_statuses", m.GetRetriableStatuses())
	return h
}

func (d *decoder) tcpCheck(m *corev3.HealthCheck_TcpHealthCheck) *conf.TCPCheck {
	d.Only(m, "send", "receive")
	t := &conf.TCPCheck{}
	if m.GetSend() != nil {
		d.At("send", func() { t.Send = d.payload(m.GetSend()) })
	}
	walk.Each(d.Walk, "receive", m.GetReceive(), func(p *corev3.HealthCheck_Payload) { t.Receive = append(t.Receive, d.payload(p)) })
	return t
}

// payload reads bytes, or their hexadecimal form.
func (d *decoder) payload(m *corev3.HealthCheck_Payload) []byte {
	if p, ok := m.GetPayload().(*corev3.HealthCheck_Payload_Binary); ok {
		return p.Binary
	}
	b, err := hex.DecodeString(m.GetText())
	if err != nil || len(b) == 0 {
		d.At("text", func() { d.Fail("%q is not hexadecimal", m.GetText()) })
	}
	return b
}

func (d *decoder) keepAlive(m *clusterv3.UpstreamConnectionOptions) *conf.KeepAlive {
	d.Only(m, "tcp_keepalive", "happy_eyeballs_config") // without effect: both families are tried
	k := m.GetTcpKeepalive()
	if k == nil {
		return nil
	}
	d.Only(k, "keepalive_probes", "keepalive_time", "keepalive_interval")
	seconds := func(field string, n uint32) time.Duration {
		if n > 32767 {
			d.At("tcp_keepalive."+field, func() { d.Fail("%d seconds are more than Linux knows", n) })
		}
		return time.Duration(n) * time.Second
	}
	return &conf.KeepAlive{Probes: k.GetKeepaliveProbes().GetValue(), Idle: seconds("keepalive_time", k.GetKeepaliveTime().GetValue()),
		Interval: seconds("keepalive_interval", k.GetKeepaliveInterval().GetValue())}
}
