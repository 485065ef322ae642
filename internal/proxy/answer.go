package proxy

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/weftmesh/weft/internal/proxy/failure"
	"github.com/weftmesh/weft/internal/proxy/filter/cors"
	"github.com/weftmesh/weft/internal/proxy/filter/rewrite"
	"github.com/weftmesh/weft/internal/proxy/message"
)

// answerByRoute gives the redirect or direct response that the route asks for, or its answer to a preflight.
func (x *exchange) answerByRoute() {
	rt := x.matched.Route
	x.res.Reset()
	var body []byte
	switch {
	case x.origin == cors.Preflight:
		x.res.Status = http.StatusOK
		cors.Permit(rt.CORS, &x.req, &x.res.Header)
	case x.origin == cors.Unmatched:
		x.res.Status = http.StatusOK
	case rt.Redirect != nil:
		x.res.Status = rt.Redirect.Status
		x.res.Header.Add("Location", rewrite.Location(&x.req, rt.Redirect, &rt.Match, x.d.clientScheme(&x.req)))
	case rt.Direct != nil:
		x.res.Status, body = rt.Direct.Status, rt.Direct.Body
	}
	x.applyResponse()
	if x.isGRPC && x.res.Status >= 400 {
		x.answerGRPC(grpcOfHTTP(x.res.Status), string(body))
		return
	}
	x.answer(body)
}

// clientScheme is what the client used towards the outermost proxy.
func (d *downstream) clientScheme(r *message.Request) string {
	if d.http != nil && d.http.UseRemoteAddress {
		return d.scheme()
	}
	if v, ok := r.Header.Get("X-Forwarded-Proto"); ok && v == "https" {
		return v
	}
	return r.Scheme
}

// answerError tells the client what failed: in full within the mesh, in general outside.
func (x *exchange) answerError() {
	x.res.Reset()
	if x.res.Status = x.err.Status(); x.res.Status == 0 {
		return // there is nobody to tell
	}
	if x.err.Kind == failure.RefusedMethod {
		x.res.Header.Add("Allow", "") // what CONNECT asks for, a tunnel's end, has no method here (RFC 9110 section 15.5.6)
	}
	x.tellAttempts()
	text := x.err.Public()
	if x.d.inMesh() {
		if x.err.Kind != failure.Denied && x.err.Kind != failure.Injected {
			text += ": " + x.err.Error()
		}
		x.res.Header.Add(reasonHeader, oneLine(x.reason()))
		switch {
		case x.d.direction != inbound:
		case x.err.NeverSent():
			x.res.Header.Add(unsentHeader, "1")
		case x.err.Kind == failure.UpstreamClosed && x.call != nil && !x.call.ResponseStarted():
			x.res.Header.Add(unansweredHeader, "1")
		}
	}
	if x.isGRPC || x.fault.GRPC != 0 && x.err.Kind == failure.Injected {
		x.answerGRPC(x.grpcFailure(), text)
		return
	}
	x.res.Header.Add("Content-Type", "text/plain")
	x.answer([]byte(text))
}

// reason is the failure in plain words, for the log and for callers within the mesh.
func (x *exchange) reason() string {
	why := x.cause()
	if why == "" {
		return ""
	}
	if x.attempt > 1 {
		why += " (attempt " + strconv.Itoa(x.attempt) + ")"
	}
	switch {
	case x.bodyGone:
		why += " (not tried again: the request's body was too long to be kept)"
	case x.unpaid:
		why += " (not tried again: as many retries are under way as may be)"
	}
	return why
}

func (x *exchange) cause() string {
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
func (x *exchange) answer(body []byte) {
	r := &x.res
	r.Body = message.Body{Kind: message.Sized, Length: int64(len(body))}
	if x.isGRPC && len(body) == 0 {
		r.Body = message.Body{}
	}
	if x.http != nil && x.http.ServerName != "" {
		r.Header.Set("Server", x.http.ServerName)
	}
	r.Header.Set("Date", x.p.date(x.start))
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

// refuse answers a request that could not be read, or is not taken on its connection, and records it. Status 0 is the kind's own.
func (x *exchange) refuse(k failure.Kind, status int, bad error) {
	x.err = failure.New(k, "request", bad)
	if status != 0 {
		x.err.Code = status
	}
	x.http = x.d.http
	x.answerError()
	x.end = x.p.opt.Now()
	x.record()
}
