package exchange

import (
	"strings"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/downstream"
	"github.com/weftmesh/weft/internal/proxy/failure"
	"github.com/weftmesh/weft/internal/proxy/message"
	"github.com/weftmesh/weft/internal/proxy/record"
	"github.com/weftmesh/weft/internal/telemetry"
)

// record counts and logs what happened.
func (x *Exchange) record() {
	a := telemetry.Answer{Code: x.status, Flags: x.flags(), GRPC: x.grpc}
	if e := x.edge(); e != nil {
		e.Request(a, x.End.Sub(x.Start), x.received, x.sent)
		if x.isGRPC {
			e.Messages(x.asked.Count(), x.answered.Count())
		}
	}
	if x.cluster != nil {
		attempts := x.attempt
		if x.to == nil {
			attempts = 0
		}
		x.cluster.Tally.Count(attempts, x.status, x.err)
	}
	logs := x.accessLogs()
	if x.p.Book.Silent(logs) {
		return
	}
	if x.entry.Start.IsZero() {
		x.prepareEntry()
	}
	x.finishEntry(a)
	x.p.Book.Write(&x.entry, logs)
}

// flags are the response flags: of the failure, of an injected delay, and of retries that were used up.
func (x *Exchange) flags() string {
	flag := "-"
	if x.err != nil {
		flag = x.err.Flag()
	}
	if !x.exhausted && x.fault.Delay <= 0 {
		return flag
	}
	extra := []string{flag}
	if x.fault.Delay > 0 {
		extra = append(extra, "DI")
	}
	if x.exhausted {
		extra = append(extra, "URX")
	}
	return record.JoinFlags(extra)
}

// codec names the client's version of HTTP as Envoy's details do.
func (x *Exchange) codec() string {
	switch {
	case !x.down.Shared():
		return "http1"
	case x.Req.Proto == message.HTTP3:
		return "http3"
	}
	return "http2"
}

// prepareEntry takes what the heads say.
func (x *Exchange) prepareEntry() {
	if x.p.Book.Silent(x.accessLogs()) {
		return
	}
	e, h := &x.entry, &x.Req.Header
	e.Start, e.Method, e.Path, e.Authority = x.Start, x.Req.Method, x.Req.Path, x.Req.Authority
	if x.Req.Proto != 0 {
		e.Protocol = x.Req.Proto.String()
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

func (x *Exchange) finishEntry(a telemetry.Answer) {
	e := &x.entry
	e.Code, e.Flags, e.Received, e.Sent, e.GRPC = a.Code, a.Flags, x.received, x.sent, a.GRPC
	e.Duration, e.UpstreamTime = x.End.Sub(x.Start), x.upstreamTime
	e.Remote, e.Local, e.ServerName, e.Peer = x.d.Remote, x.d.Destination, x.d.SNI, x.d.PeerURI
	e.Details = "via_upstream"
	if x.matched.Route != nil {
		if e.Route = x.matched.Route.Name; x.matched.Route.Forward == nil {
			e.Details = "direct_response"
		}
	}
	if x.cluster != nil {
		e.Cluster = x.cluster.Conf.Name
	}
	if x.to != nil {
		e.UpstreamHost = x.to.Raw.Address
	}
	e.UpstreamLocal = x.upLocal
	if e.Reason = x.reason(); x.err != nil {
		e.Details = x.err.Details(x.codec())
		if x.err.Kind == failure.TLSFailed {
			e.TransportFailure = x.err.Error()
		}
	} else if x.verdict.ShadowDenied {
		e.Reason = "dry run: would be denied by policy " + x.verdict.ShadowPolicy
	}
}

// accessLogs are those that the configuration names for the request. Before its route is looked up, the connection's count.
func (x *Exchange) accessLogs() []conf.AccessLog {
	switch {
	case x.http != nil:
		return x.http.AccessLogs
	case x.d.HTTP != nil:
		return x.d.HTTP.AccessLogs
	case x.d.Direction == downstream.Outbound && x.snapshot != nil && x.snapshot.Unknown != nil:
		return x.snapshot.Unknown.AccessLogs
	}
	return nil
}

// keepFields takes the header fields that the formats name: the upstream's strings live no longer than the exchange holds its
// connection.
func (x *Exchange) keepFields() {
	for _, l := range x.accessLogs() {
		if l.Format == nil {
			continue
		}
		x.entry.Request = keepFields(x.entry.Request, l.Format.Request, &x.Req.Header)
		x.entry.Response = keepFields(x.entry.Response, l.Format.Response, &x.res.Header)
	}
}

func keepFields(kept []telemetry.HeaderValue, names []string, h *message.Header) []telemetry.HeaderValue {
	for _, name := range names {
		if v, ok := h.Get(name); ok {
			kept = append(kept, telemetry.HeaderValue{Name: name, Value: strings.Clone(v)})
		}
	}
	return kept
}
