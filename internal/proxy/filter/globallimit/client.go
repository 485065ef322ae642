// Package globallimit asks a rate-limit service whether requests are within limits that all proxies share. It speaks the protocol of
// envoy.service.ratelimit.v3 and decides nothing.
package globallimit

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	commonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	servicev3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/weftmesh/weft/internal/proxy/conf"
)

// Client is a connection to a service. Its methods may be called from any goroutine.
type Client struct {
	conn    *grpc.ClientConn
	service servicev3.RateLimitServiceClient
}

// New makes a client; it connects at the first question. dial makes connections that are as secure as they need to be.
func New(dial func(context.Context) (net.Conn, error)) (*Client, error) {
	conn, err := grpc.NewClient("passthrough:///ratelimit", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx) }),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)))
	if err != nil {
		return nil, fmt.Errorf("rate-limit service: %w", err)
	}
	return &Client{conn, servicev3.NewRateLimitServiceClient(conn)}, nil
}

// maxAnswer bounds an answer, in bytes.
const maxAnswer = 256 << 10

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

// Answer is the service's verdict. Limit, Left and Reset are those of the tightest limit that it tells of; Limit is 0 where it tells of
// none.
type Answer struct {
	Over              bool
	Limit, Left       uint32
	Reset             time.Duration
	Request, Response []conf.HeaderValue // fields to set
	Body              []byte             // of the refusal
}

// plain leaves out what gRPC says around the cause.
func plain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	text := status.Convert(err).Message()
	if _, cause, ok := strings.Cut(text, "Error while dialing: "); ok {
		text = strings.TrimSuffix(cause, `"`)
	}
	return errors.New(text)
}

// Ask counts a request that is described in so many ways. It fails when ctx ends.
func (c *Client) Ask(ctx context.Context, domain string, descriptions [][]conf.LimitEntry) (Answer, error) {
	q := &servicev3.RateLimitRequest{Domain: domain, HitsAddend: 1}
	for _, entries := range descriptions {
		d := &commonv3.RateLimitDescriptor{}
		for _, e := range entries {
			d.Entries = append(d.Entries, &commonv3.RateLimitDescriptor_Entry{Key: e.Key, Value: e.Value})
		}
		q.Descriptors = append(q.Descriptors, d)
	}
	r, err := c.service.ShouldRateLimit(ctx, q)
	if err != nil {
		return Answer{}, fmt.Errorf("rate-limit service: %w", plain(ctx, err))
	}
	a := Answer{Over: r.GetOverallCode() == servicev3.RateLimitResponse_OVER_LIMIT, Body: r.GetRawBody()}
	for _, h := range r.GetRequestHeadersToAdd() {
		a.Request = append(a.Request, conf.HeaderValue{Name: h.GetKey(), Value: h.GetValue()})
	}
	for _, h := range r.GetResponseHeadersToAdd() {
		a.Response = append(a.Response, conf.HeaderValue{Name: h.GetKey(), Value: h.GetValue()})
	}
	for _, s := range r.GetStatuses() {
		if limit := s.GetCurrentLimit(); limit != nil && (a.Limit == 0 || s.GetLimitRemaining() < a.Left) {
			a.Limit, a.Left, a.Reset = limit.GetRequestsPerUnit(), s.GetLimitRemaining(), s.GetDurationUntilReset().AsDuration()
		}
	}
	return a, nil
}
