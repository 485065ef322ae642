package app

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

// maxReply bounds how much of an upstream's body is read, in bytes.
const maxReply = 1 << 20

// traceHeaders are handed on unchanged by every service, so that whoever watches the network can join the calls that one
// request caused. The families: request id, Lightstep, Datadog, W3C trace context, Google Cloud, gRPC binary, Zipkin B3 (single
// and multiple headers), SkyWalking. The last line is the application's own: who asks, with which credentials.
var traceHeaders = []string{
	"X-Request-Id",
	"X-Ot-Span-Context",
	"X-Datadog-Trace-Id", "X-Datadog-Parent-Id", "X-Datadog-Sampling-Priority",
	"Traceparent", "Tracestate",
	"X-Cloud-Trace-Context",
	"Grpc-Trace-Bin",
	"B3", "X-B3-Traceid", "X-B3-Spanid", "X-B3-Parentspanid", "X-B3-Sampled", "X-B3-Flags",
	"Sw8",
	"User-Agent", "Cookie", "Authorization", "Jwt",
}

// endUser names the signed-in user towards upstreams. productpage sets it from its session and from nothing else, so that a
// browser cannot claim to be someone by sending the header; the other services hand on what they get.
const endUser = "End-User"

// traceOf returns a copy of the headers of in that every service hands on.
func traceOf(in http.Header) http.Header {
	out := make(http.Header, 8)
	for _, name := range traceHeaders {
		if values := in.Values(name); len(values) > 0 {
			out[name] = append([]string(nil), values...)
		}
	}
	return out
}

// reply is one complete upstream answer, whatever its status.
type reply struct {
	status  int
	version string // the answering instance's VersionHeader; may be empty
	body    []byte
}

// upstream calls one other service.
type upstream struct {
	client http.Client
	prefix string // base URL and collection, such as http://reviews:9080/reviews/
}

func newUpstream(transport http.RoundTripper, base, collection string) *upstream {
	return &upstream{client: http.Client{Transport: transport}, prefix: base + "/" + collection + "/"}
}

// get asks for the item with the given escaped path segment and reads the whole answer within wait. An error means that no
// complete answer came; an answer with an error status is not an error.
func (u *upstream) get(ctx context.Context, segment string, header http.Header, wait time.Duration) (reply, error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.prefix+segment, nil)
	if err != nil {
		return reply{}, fmt.Errorf("get %s%s: %w", u.prefix, segment, err)
	}
	req.Header = header.Clone()
	req.Header.Set("Accept", "application/json")
	resp, err := u.client.Do(req)
	if err != nil {
		return reply{}, err // *url.Error names method and URL
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxReply+1))
	if err != nil {
		return reply{}, fmt.Errorf("read answer of %s%s: %w", u.prefix, segment, err)
	}
	if len(body) > maxReply {
		return reply{}, fmt.Errorf("read answer of %s%s: more than %d bytes", u.prefix, segment, maxReply)
	}
	return reply{status: resp.StatusCode, version: resp.Header.Get(VersionHeader), body: body}, nil
}

// failure is the body of every error answer.
type failure struct {
	Error string `json:"error"`
}

// writeJSON answers with status and the JSON of value, which must be encodable.
func writeJSON(w http.ResponseWriter, status int, value any) {
	body, err := json.Marshal(value)
	if err != nil {
		panic(fmt.Sprintf("encode %T: %v", value, err))
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	w.Write(body)
}
