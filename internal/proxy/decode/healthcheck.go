package decode

import (
	"cmp"
	"encoding/hex"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/weftmesh/weft/internal/proxy/conf"
)

func (d *decoder) healthCheck(m *corev3.HealthCheck) conf.HealthCheck {
	d.only(m, "timeout", "interval", "initial_jitter", "interval_jitter", "interval_jitter_percent", "unhealthy_threshold", "healthy_threshold",
		"http_health_check", "tcp_health_check", "grpc_health_check", "no_traffic_interval", "no_traffic_healthy_interval", "unhealthy_interval",
		"unhealthy_edge_interval", "healthy_edge_interval", "always_log_health_check_failures", "always_log_health_check_success",
		// Without effect: connections of checks are never kept.
		"reuse_connection")
	h := conf.HealthCheck{
		Timeout: d.required("timeout", m.GetTimeout()), Interval: d.required("interval", m.GetInterval()),
		InitialJitter: d.duration("initial_jitter", m.GetInitialJitter()), IntervalJitter: d.duration("interval_jitter", m.GetIntervalJitter()),
		JitterPercent: m.GetIntervalJitterPercent(), NoTraffic: cmp.Or(d.duration("no_traffic_healthy_interval", m.GetNoTrafficHealthyInterval()), d.duration("no_traffic_interval", m.GetNoTrafficInterval())),
		Unhealthy: d.duration("unhealthy_interval", m.GetUnhealthyInterval()), UnhealthyEdge: d.duration("unhealthy_edge_interval", m.GetUnhealthyEdgeInterval()),
		HealthyEdge:        d.duration("healthy_edge_interval", m.GetHealthyEdgeInterval()),
		UnhealthyThreshold: m.GetUnhealthyThreshold().GetValue(), HealthyThreshold: m.GetHealthyThreshold().GetValue(),
	}
	if h.UnhealthyThreshold == 0 || h.HealthyThreshold == 0 {
		d.fail("unhealthy_threshold and healthy_threshold: are required")
	}
	switch c := m.GetHealthChecker().(type) {
	case *corev3.HealthCheck_HttpHealthCheck_:
		d.at("http_health_check", func() { h.HTTP = d.httpCheck(c.HttpHealthCheck) })
	case *corev3.HealthCheck_TcpHealthCheck_:
		d.at("tcp_health_check", func() { h.TCP = d.tcpCheck(c.TcpHealthCheck) })
	case *corev3.HealthCheck_GrpcHealthCheck_:
		d.at("grpc_health_check", func() {
			d.only(c.GrpcHealthCheck, "service_name", "authority")
			h.GRPC = &conf.GRPCCheck{Service: c.GrpcHealthCheck.GetServiceName(), Authority: c.GrpcHealthCheck.GetAuthority()}
		})
	default:
		d.fail("health_checker: is required")
	}
	return h
}

// required reads a duration that must be longer than nothing.
func (d *decoder) required(field string, m *durationpb.Duration) time.Duration {
	v := d.duration(field, m)
	if v <= 0 {
		d.at(field, func() { d.failed(errRequired) })
	}
	return v
}

func (d *decoder) httpCheck(m *corev3.HealthCheck_HttpHealthCheck) *conf.HTTPCheck {
	d.only(m, "host", "path", "method", "expected_statuses", "retriable_statuses")
	h := &conf.HTTPCheck{Host: m.GetHost(), Path: m.GetPath(), Method: "GET"}
	if m.GetMethod() != corev3.RequestMethod_METHOD_UNSPECIFIED {
		h.Method = m.GetMethod().String()
	}
	if h.Path == "" || h.Path[0] != '/' {
		d.at("path", func() { d.fail("%q does not begin with a slash", h.Path) })
	}
	if h.Method == "CONNECT" {
		d.at("method", func() { d.fail("CONNECT cannot be checked with") })
	}
	ranges := func(field string, list []*typev3.Int64Range) (out []conf.StatusRange) {
		each(d, field, list, func(r *typev3.Int64Range) {
			if r.GetStart() < 100 || r.GetEnd() > 600 || r.GetStart() >= r.GetEnd() {
				d.fail("%d to %d is no range of statuses", r.GetStart(), r.GetEnd())
			}
			out = append(out, conf.StatusRange{Start: int(r.GetStart()), End: int(r.GetEnd())})
		})
		return out
	}
	h.Expected, h.Retriable = ranges("expected_statuses", m.GetExpectedStatuses()), ranges("retriable_statuses", m.GetRetriableStatuses())
	return h
}

func (d *decoder) tcpCheck(m *corev3.HealthCheck_TcpHealthCheck) *conf.TCPCheck {
	d.only(m, "send", "receive")
	t := &conf.TCPCheck{}
	if m.GetSend() != nil {
		d.at("send", func() { t.Send = d.payload(m.GetSend()) })
	}
	each(d, "receive", m.GetReceive(), func(p *corev3.HealthCheck_Payload) { t.Receive = append(t.Receive, d.payload(p)) })
	return t
}

// payload reads bytes, or their hexadecimal form.
func (d *decoder) payload(m *corev3.HealthCheck_Payload) []byte {
	if p, ok := m.GetPayload().(*corev3.HealthCheck_Payload_Binary); ok {
		return p.Binary
	}
	b, err := hex.DecodeString(m.GetText())
	if err != nil || len(b) == 0 {
		d.at("text", func() { d.fail("%q is not hexadecimal", m.GetText()) })
	}
	return b
}

func (d *decoder) keepAlive(m *clusterv3.UpstreamConnectionOptions) *conf.KeepAlive {
	d.only(m, "tcp_keepalive", "happy_eyeballs_config") // without effect: both families are tried
	k := m.GetTcpKeepalive()
	if k == nil {
		return nil
	}
	d.only(k, "keepalive_probes", "keepalive_time", "keepalive_interval")
	seconds := func(field string, n uint32) time.Duration {
		if n > 32767 {
			d.at("tcp_keepalive."+field, func() { d.fail("%d seconds are more than Linux knows", n) })
		}
		return time.Duration(n) * time.Second
	}
	return &conf.KeepAlive{Probes: k.GetKeepaliveProbes().GetValue(), Idle: seconds("keepalive_time", k.GetKeepaliveTime().GetValue()),
		Interval: seconds("keepalive_interval", k.GetKeepaliveInterval().GetValue())}
}
