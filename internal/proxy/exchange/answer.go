package exchange

import (
	"errors"
	"net/http"
	"os"
	"strconv"
	"strings"

	"github.com/weftmesh/weft/internal/proxy/downstream"
	"github.com/weftmesh/weft/internal/proxy/failure"
	"github.com/weftmesh/weft/internal/proxy/filter/cors"
	"github.com/weftmesh/weft/internal/proxy/filter/retry"
	"github.com/weftmesh/weft/internal/proxy/filter/rewrite"
	"github.com/weftmesh/weft/internal/proxy/grpc"
	http1 "github.com/weftmesh/weft/internal/proxy/http"
	"github.com/weftmesh/weft/internal/proxy/message"
)

// answerByRoute gives the redirect or direct response that the route asks for, or its answer to a preflight.
func (x *Exchange) answerByRoute() {
	rt := x.matched.Route
	x.res.Reset()
	var body []byte
	switch {
	case x.origin == cors.Preflight:
		x.res.Status = http.StatusOK
		cors.Permit(rt.CORS, &x.Req, &x.res.Header)
	case x.origin == cors.Unmatched:
		x.res.Status = http.StatusOK
	case rt.Redirect != nil:
		x.res.Status = rt.Redirect.Status
		x.res.Header.Add("Location", rewrite.Location(&x.Req, rt.Redirect, &rt.Match, x.d.ClientScheme(&x.Req)))
	case rt.Direct != nil:
		x.res.Status, body = rt.Direct.Status, rt.Direct.Body
	}
	x.applyResponse()
	if x.isGRPC && x.res.Status >= 400 {
		x.answerGRPC(grpc.OfHTTP(x.res.Status), string(body))
		return
	}
	x.answer(body)
}

// answerError tells the client what failed: in full within the mesh, in general outside.
func (x *Exchange) answerError() {
	x.res.Reset()
	if x.res.Status = x.err.Status(); x.res.Status == 0 {
		return // there is nobody to tell
	}
	if x.err.Kind == failure.RefusedMethod {
		x.res.Header.Add("Allow", "") // what CONNECT asks for, a tunnel's end, has no method here (RFC 9110 section 15.5.6)
	}
	x.tellOverload()
	if x.tellAttempts(); x.matched.Route != nil {
		x.applyResponse() // what the route says of responses holds for this one, too
	}
	if x.err.Kind == failure.NoCluster {
		x.cors() // it was to come later
	}
	text := x.err.Public()
	if x.d.InMesh() {
		if x.err.Kind != failure.Denied && x.err.Kind != failure.Injected {
			text += ": " + x.err.Error()
		}
		x.res.Header.Add(ReasonHeader, oneLine(x.reason()))
		switch {
		case x.d.Direction != downstream.Inbound:
		case x.err.NeverSent():
			x.res.Header.Add(UnsentHeader, "1")
		case x.err.Kind == failure.UpstreamClosed && x.call != nil && !x.call.ResponseStarted():
			x.res.Header.Add(UnansweredHeader, "1")
		}
	}
	if x.isGRPC || x.fault.GRPC != 0 && x.err.Kind == failure.Injected {
		x.answerGRPC(x.grpcFailure(), text)
		return
	}
	x.answer([]byte(text))
}

// tellOverload says that a request was not taken for want of room, at the service or here, as Envoy does.
func (x *Exchange) tellOverload() {
	switch {
	case x.discreet():
	case x.err.Kind == failure.Overflow:
		x.res.Header.Add("X-Envoy-Overloaded", "true")
	case x.err.Kind == failure.Overloaded:
		x.res.Header.Add("X-Envoy-Local-Overloaded", "true")
	}
}

// reason is the failure in plain words, for the log and for callers within the mesh.
func (x *Exchange) reason() string {
	why, last := x.cause(), x.lastAttempt()
	switch {
	case why == "" && last == "":
		return ""
	case why == "" && x.grpc != "":
		why = "the upstream answered grpc-status " + x.grpc
	case why == "":
		why = "the upstream answered " + strconv.Itoa(x.status)
	}
	if x.attempt > 1 {
		why += " (attempt " + strconv.Itoa(x.attempt) + ")"
	}
	if strings.HasSuffix(x.told, last) {
		return why // the proxy behind has said so
	}
	return why + last
}

// lastAttempt says why there was no other attempt where the policy wants one; empty if that is not so.
func (x *Exchange) lastAttempt() string {
	switch {
	case x.bodyGone:
		return " (not tried again: the request's body was too long to be kept)"
	case x.overspent:
		return " (not tried again: the budget of retries is used up)"
	case x.unpaid:
		return " (not tried again: as many retries are under way as may be)"
	}
	return ""
}

func (x *Exchange) cause() string {
	switch {
	case x.err == nil && x.told != "":
		return "upstream proxy: " + x.told
	case x.err == nil:
		return ""
	}
	return x.err.Reason()
}

// oneLine makes text fit for a header field: it may quote what a client or a server has sent.
func oneLine(s string) string {
	const most = 500
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	return s[:min(len(s), most)]
}

// answer sends x.res with a body of ours.
func (x *Exchange) answer(body []byte) {
	r := &x.res
	if x.declined(r.Status) {
		r.Status = http.StatusNotImplemented // the route, a fault or gRPC has it so: there is no tunnel
	}
	r.Body = message.Body{Kind: message.Sized, Length: int64(len(body))}
	if x.isGRPC && len(body) == 0 {
		r.Body = message.Body{}
	}
	if x.http != nil && x.http.ServerName != "" {
		r.Header.Set("Server", x.http.ServerName)
	}
	r.Header.Set("Date", x.p.date(x.Start))
	if len(body) > 0 {
		if _, ok := r.Header.Get("Content-Type"); !ok {
			r.Header.Add("Content-Type", "text/plain")
		}
	}
	x.markOrigin()
	x.markLimits()
	x.advertise()
	x.status = r.Status
	err := x.down.WriteResponse(r)
	if err == nil {
		if err = x.down.WriteBody(body); err == nil {
			err = x.down.FinishBody(nil)
		}
	}
	if err == nil {
		x.sent = int64(len(body))
	} else if x.err == nil {
		x.gone("reply", err)
	}
}

// Refuse answers a request that could not be read, or is not taken on its connection, and records it. Status 0 is the kind's own.
func (x *Exchange) Refuse(k failure.Kind, status int, bad error) {
	x.err = failure.New(k, "request", bad)
	if status != 0 {
		x.err.Code = status
	}
	x.http = x.d.HTTP
	x.answerError()
	x.End = x.p.Now()
	x.record()
}

// RefuseUnread answers a request whose head did not come whole, or (err is nil) whose connection is not taken in any more, where
// there is somebody to answer.
func (x *Exchange) RefuseUnread(err error) {
	var bad *http1.Error
	switch {
	case err == nil && retry.Repeatable(&x.Req):
		// Clients repeat such a request by themselves when a kept connection closes, and seldom at an answer.
	case err == nil:
		x.Refuse(failure.NotTaken, 0, errors.New("the listener's configuration has changed, and does not take this connection any more"))
	case errors.As(err, &bad):
		x.Refuse(failure.Malformed, bad.Status, bad)
	case errors.Is(err, os.ErrDeadlineExceeded):
		x.Refuse(failure.SlowHead, 0, err)
	}
}
