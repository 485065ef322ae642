package exchange

import (
	"unsafe"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/downstream"
	"github.com/weftmesh/weft/internal/proxy/grpc"
	http1 "github.com/weftmesh/weft/internal/proxy/http"
	"github.com/weftmesh/weft/internal/proxy/message"
	"github.com/weftmesh/weft/internal/proxy/side"
)

// admit makes the request fit to be forwarded: what concerned the client's connection alone goes, what the mesh adds comes.
func (x *Exchange) admit() bool {
	r := &x.Req
	x.snapshot, x.isGRPC = x.p.Config.Snapshot(), grpc.Is(r)
	if r.Proto != message.HTTP2 {
		http1.StripHopByHop(&r.Header) // HTTP/2 has none, see package http2
	}
	if r.Body.Kind == message.Sized && r.Proto >= message.HTTP2 {
		r.Body = withTrailers(r.Body, &r.Header)
	}
	x.fromOutside()
	x.setID()
	if r.ExpectContinue {
		r.Header.Set("Expect", "100-continue") // once, whatever the client has repeated: the endpoint is to answer it
	}
	switch proto, ok := r.Header.Get("X-Forwarded-Proto"); {
	case !ok:
		r.Header.Add("X-Forwarded-Proto", r.Scheme)
	case r.Proto < message.HTTP2 && (proto == "https" || proto == "http"):
		r.Scheme = proto // HTTP/1 does not say it of itself: it is what the outermost proxy was asked by
	}
	if x.d.Direction == downstream.Inbound {
		x.forwardClientCert()
	} else {
		side.DropClientCert(&r.Header) // no workload says who calls it
	}
	return true
}

// withTrailers gives a body that has trailers to come, as only later versions of HTTP have it beside a length, a framing that HTTP/1
// has for it.
func withTrailers(b message.Body, h *message.Header) message.Body {
	if _, ok := h.Get("Trailer"); ok {
		return message.Body{Kind: message.Chunked}
	}
	return b
}

// internalHeaders are those by which a client could steer the mesh; from outside they are not believed. Source: Envoy's header
// sanitizing for external requests.
var internalHeaders = [...]string{"X-Envoy-Attempt-Count", "X-Envoy-Decorator-Operation", "X-Envoy-Downstream-Service-Cluster",
	"X-Envoy-Downstream-Service-Node", "X-Envoy-Expected-Rq-Timeout-Ms", "X-Envoy-External-Address", "X-Envoy-Force-Trace",
	"X-Envoy-Hedge-On-Per-Try-Timeout", "X-Envoy-Internal", "X-Envoy-Ip-Tags", "X-Envoy-Max-Retries", "X-Envoy-Original-Path",
	"X-Envoy-Peer-Metadata", "X-Envoy-Peer-Metadata-Id", "X-Envoy-Retriable-Header-Names", "X-Envoy-Retriable-Status-Codes",
	"X-Envoy-Retry-Grpc-On", "X-Envoy-Retry-On", "X-Envoy-Upstream-Alt-Stat-Name", "X-Envoy-Upstream-Rq-Per-Try-Timeout-Ms",
	"X-Envoy-Upstream-Rq-Timeout-Alt-Response", "X-Envoy-Upstream-Rq-Timeout-Ms", "X-Weft-Reason"}

func (x *Exchange) fromOutside() {
	if x.d.HTTP == nil || !x.d.HTTP.UseRemoteAddress {
		return
	}
	h := &x.Req.Header
	for i := h.Len() - 1; i >= 0; i-- {
		if n := h.At(i).Name; len(n) > 2 && (n[0] == 'x' || n[0] == 'X') && n[1] == '-' && isInternal(n) {
			h.Del(n)
			i = min(i, h.Len())
		}
	}
	h.Set("X-Forwarded-Proto", x.d.Scheme())
	client := x.d.Remote.Addr().String()
	if before, ok := h.Get("X-Forwarded-For"); ok {
		client = before + "," + client
	}
	h.Set("X-Forwarded-For", client)
}

func isInternal(name string) bool {
	for _, n := range internalHeaders {
		if message.EqualFold(n, name) {
			return true
		}
	}
	return false
}

func (x *Exchange) forwardClientCert() {
	h := &x.Req.Header
	if x.http = x.d.HTTP; x.http == nil {
		return
	}
	mode, told := x.http.ForwardClientCert, x.d.XFCC
	if mode == conf.AppendClientCert && told != "" {
		if before, ok := h.Get(side.ClientCertHeader); ok {
			told = before + "," + told
		}
	}
	side.DropClientCert(h)
	if mode != conf.SanitizeClientCert && told != "" {
		h.Add(side.ClientCertHeader, told)
	}
}

// setID gives the request an id (a random UUID, RFC 9562 section 5.4) unless it has one. traceparent and its kin are the
// application's and stay as they are.
func (x *Exchange) setID() {
	if v, ok := x.Req.Header.Get("X-Request-Id"); ok && v != "" {
		return
	}
	const digits = "0123456789abcdef"
	hi, lo := x.p.random64(), x.p.random64()
	hi = hi&^0xf000 | 0x4000
	lo = lo&^(3<<62) | 1<<63
	n := 0
	for _, word := range [2]uint64{hi, lo} {
		for shift := 60; shift >= 0; shift -= 4 {
			if n == 8 || n == 13 || n == 18 || n == 23 {
				x.id[n] = '-'
				n++
			}
			x.id[n] = digits[word>>shift&15]
			n++
		}
	}
	x.Req.Header.Set("X-Request-Id", unsafe.String(&x.id[0], len(x.id)))
}
