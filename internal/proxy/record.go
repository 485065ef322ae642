package proxy

import (
	"net/netip"
	"strings"

	"github.com/weftmesh/weft/internal/telemetry"
)

// record counts and logs what happened.
func (x *exchange) record() {
	a := telemetry.Answer{Code: x.status, Flags: x.flags(), GRPC: x.grpc}
	if e := x.edge(); e != nil {
		e.Request(a, x.end.Sub(x.start), x.received, x.sent)
		if x.isGRPC {
			e.Messages(x.asked.Count(), x.answered.Count())
		}
	}
	if x.cluster != nil {
		x.cluster.tally.count(x)
	}
	if x.p.access == nil {
		return
	}
	if x.entry.Start.IsZero() {
		x.prepareEntry()
	}
	x.finishEntry(a)
	x.p.access.Write(&x.entry)
}

// flags are the response flags: of the failure, and of an injected delay.
func (x *exchange) flags() string {
	switch {
	case x.exhausted:
		return exhausted(x.err)
	case x.err == nil && x.fault.Delay > 0:
		return "DI"
	case x.err == nil:
		return "-"
	case x.fault.Delay > 0 && x.err.kind == injected:
		return "DI,FI"
	}
	return x.err.Flag()
}

// exhausted are the flags of what failed, or was answered with what is retried, more often than the policy repeats it. They are
// constants: a flag is a metric's label.
func exhausted(err *Error) string {
	if err == nil {
		return "URX"
	}
	switch flag := err.Flag(); flag {
	case "UF":
		return "UF,URX"
	case "UC":
		return "UC,URX"
	case "UT":
		return "UT,URX"
	case "UR":
		return "UR,URX"
	default:
		return flag
	}
}

// prepareEntry takes what the heads say.
func (x *exchange) prepareEntry() {
	if x.p.access == nil {
		return
	}
	e, h := &x.entry, &x.req.Header
	e.Start, e.Method, e.Path, e.Authority = x.start, x.req.Method, x.req.Path, x.req.Authority
	if x.req.Proto != 0 {
		e.Protocol = x.req.Proto.String()
	}
	e.ForwardedFor, _ = h.Get("X-Forwarded-For")
	e.UserAgent, _ = h.Get("User-Agent")
	e.RequestID, _ = h.Get("X-Request-Id")
	if x.res.Status == 101 { // the log comes after the connection has become another's
		for _, s := range []*string{&e.Method, &e.Path, &e.Authority, &e.ForwardedFor, &e.UserAgent, &e.RequestID} {
			*s = strings.Clone(*s)
		}
	}
}

func (x *exchange) finishEntry(a telemetry.Answer) {
	e := &x.entry
	e.Code, e.Flags, e.Received, e.Sent = a.Code, a.Flags, x.received, x.sent
	e.Duration, e.UpstreamTime = x.end.Sub(x.start), x.upstreamTime
	e.Remote, e.Local, e.ServerName, e.Peer = x.d.remote, x.d.destination, x.d.sni, x.d.peerURI
	e.Details = "via_upstream"
	if x.matched.Route != nil {
		if e.Route = x.matched.Route.Name; x.matched.Route.Forward == nil {
			e.Details = "direct_response"
		}
	}
	if x.cluster != nil {
		e.Cluster = x.cluster.conf.Name
	}
	if x.to != nil {
		e.UpstreamHost = x.to.raw.Address
	}
	e.UpstreamLocal = x.upLocal
	if e.Reason = x.reason(); x.err != nil {
		e.Details = x.err.Details()
		if x.err.kind == tlsFailed {
			e.TransportFailure = x.err.Error()
		}
	} else if x.verdict.ShadowDenied {
		e.Reason = "dry run: would be denied by policy " + x.verdict.ShadowPolicy
	}
}

// logTCP writes the line of a relayed connection.
func (p *Proxy) logTCP(e *telemetry.Entry, d *downstream, upstreamHost string, local netip.AddrPort) {
	if p.access == nil {
		return
	}
	e.Remote, e.Local, e.ServerName, e.Peer = d.remote, d.destination, d.sni, d.peerURI
	e.UpstreamHost, e.UpstreamLocal = upstreamHost, local
	p.access.Write(e)
}
