package proxy

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/weftmesh/weft/internal/proxy/conf"
)

// echo is a server of gRPC that tells what it was asked. Sizes and statuses are the request's to choose.
type echo struct {
	grpc_testing.UnimplementedTestServiceServer
	calls, canceled atomic.Int64
	fail            atomic.Int64 // so many calls end by UNAVAILABLE
	deadline        atomic.Int64 // milliseconds that were left to the last call
}

func (e *echo) UnaryCall(ctx context.Context, r *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
	e.calls.Add(1)
	if at, ok := ctx.Deadline(); ok {
		e.deadline.Store(time.Until(at).Milliseconds())
	}
	if e.fail.Add(-1) >= 0 {
		return nil, status.Error(codes.Unavailable, "not now")
	}
	in, _ := metadata.FromIncomingContext(ctx)
	grpc.SetHeader(ctx, metadata.Pairs("x-head", strings.Join(in["x-ask"], ",")))
	grpc.SetTrailer(ctx, metadata.Pairs("x-trail-bin", "\x00\x01\xff"))
	if s := r.GetResponseStatus(); s.GetCode() != 0 {
		return nil, status.Error(codes.Code(s.Code), s.Message)
	}
	if r.GetFillUsername() { // waits until nobody wants the answer
		<-ctx.Done()
		e.canceled.Add(1)
		return nil, ctx.Err()
	}
	return &grpc_testing.SimpleResponse{Payload: &grpc_testing.Payload{Body: make([]byte, r.ResponseSize)},
		Username: fmt.Sprint(len(r.GetPayload().GetBody()))}, nil
}

func (e *echo) StreamingOutputCall(r *grpc_testing.StreamingOutputCallRequest, s grpc.ServerStreamingServer[grpc_testing.StreamingOutputCallResponse]) error {
	for _, p := range r.ResponseParameters {
		if err := s.Send(&grpc_testing.StreamingOutputCallResponse{Payload: &grpc_testing.Payload{Body: make([]byte, p.Size)}}); err != nil {
			return err
		}
	}
	return nil
}

func (e *echo) StreamingInputCall(s grpc.ClientStreamingServer[grpc_testing.StreamingInputCallRequest, grpc_testing.StreamingInputCallResponse]) error {
	sum := 0
	for {
		r, err := s.Recv()
		if err == io.EOF {
			return s.SendAndClose(&grpc_testing.StreamingInputCallResponse{AggregatedPayloadSize: int32(sum)})
		}
		if err != nil {
			return err
		}
		sum += len(r.GetPayload().GetBody())
	}
}

func (e *echo) FullDuplexCall(s grpc.BidiStreamingServer[grpc_testing.StreamingOutputCallRequest, grpc_testing.StreamingOutputCallResponse]) error {
	for {
		r, err := s.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			e.canceled.Add(1)
			return err
		}
		if st := r.GetResponseStatus(); st.GetCode() != 0 {
			return status.Error(codes.Code(st.Code), st.Message)
		}
		for _, p := range r.ResponseParameters {
			if err := s.Send(&grpc_testing.StreamingOutputCallResponse{Payload: &grpc_testing.Payload{Body: make([]byte, p.Size)}}); err != nil {
				return err
			}
		}
	}
}

// serveGRPC runs the server at a port of the pod.
func (p *pod) serveGRPC(port uint16) *echo {
	p.m.t.Helper()
	l, err := p.Listen(netip.AddrPortFrom(p.Addr(), port))
	if err != nil {
		p.m.t.Fatal(err)
	}
	e, s := &echo{}, grpc.NewServer()
	grpc_testing.RegisterTestServiceServer(s, e)
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(l) }() // ends with the server
	p.m.t.Cleanup(func() { s.Stop(); <-done })
	return e
}

// stub is a client of gRPC in the pod.
func (p *pod) stub(host string, port uint16) grpc_testing.TestServiceClient {
	p.m.t.Helper()
	c, err := grpc.NewClient(fmt.Sprintf("passthrough:///%s:%d", host, port), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			_, port, _ := net.SplitHostPort(address)
			return p.Dial(ctx, netip.MustParseAddrPort(vip+":"+port))
		}))
	if err != nil {
		p.m.t.Fatal(err)
	}
	p.m.t.Cleanup(func() { c.Close() })
	return grpc_testing.NewTestServiceClient(c)
}

// grpcWay is a client and a server of gRPC with proxies between them.
type grpcWay struct {
	client *pod
	stub   grpc_testing.TestServiceClient
	echo   *echo
}

// grpcWays are through the client's sidecar alone, and through both by mutual TLS.
func grpcWays(t *testing.T, each func(*testing.T, *grpcWay)) {
	for _, name := range []string{"one proxy", "mutual TLS"} {
		t.Run(name, func(t *testing.T) {
			m := newMesh(t)
			client, server := m.pod("frontend", "10.0.0.1", nil), m.pod("echo", "10.0.0.2", nil)
			w := &grpcWay{client: client, echo: server.serveGRPC(9080)}
			client.config.publish(func(s *conf.Snapshot, _ map[string]*conf.Target) {
				c := meshCluster("echo", 9080, server)
				if name == "one proxy" {
					c.Transports = []conf.TransportMatch{{}}
				}
				s.Clusters["echo"] = c
			})
			if name == "one proxy" {
				server.accepts(permissive(9080))
			}
			r := forwardTo("echo")
			r.Forward.Retry = istioRetries()
			client.knows("echo", 9080, r)
			w.stub = client.stub("echo", 9080)
			each(t, w)
		})
	}
}

func TestGRPCCallsOfAllKinds(t *testing.T) {
	grpcWays(t, func(t *testing.T, w *grpcWay) {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "x-ask", "a", "x-ask", "b")
		for _, size := range []int32{0, 1, 1 << 10, 3 << 20} {
			var head, trail metadata.MD
			r, err := w.stub.UnaryCall(ctx, &grpc_testing.SimpleRequest{ResponseSize: size,
				Payload: &grpc_testing.Payload{Body: make([]byte, size)}}, grpc.Header(&head), grpc.Trailer(&trail))
			if err != nil || len(r.Payload.Body) != int(size) || r.Username != fmt.Sprint(size) {
				t.Fatalf("unary of %d bytes: %v", size, err)
			}
			if got := fmt.Sprint(head["x-head"], trail["x-trail-bin"]); got != "[a,b] [\x00\x01\xff]" {
				t.Errorf("metadata %q", got)
			}
		}
		var sizes []*grpc_testing.ResponseParameters
		for _, n := range []int32{1, 100000, 0, 1 << 20} {
			sizes = append(sizes, &grpc_testing.ResponseParameters{Size: n})
		}
		down, err := w.stub.StreamingOutputCall(ctx, &grpc_testing.StreamingOutputCallRequest{ResponseParameters: sizes})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range sizes {
			if r, err := down.Recv(); err != nil || len(r.Payload.Body) != int(p.Size) {
				t.Fatalf("server's stream: %v", err)
			}
		}
		if _, err := down.Recv(); err != io.EOF {
			t.Fatalf("server's stream ends with %v", err)
		}
		up, err := w.stub.StreamingInputCall(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for range 50 {
			if err := up.Send(&grpc_testing.StreamingInputCallRequest{Payload: &grpc_testing.Payload{Body: make([]byte, 20000)}}); err != nil {
				t.Fatal(err)
			}
		}
		if r, err := up.CloseAndRecv(); err != nil || r.AggregatedPayloadSize != 1e6 {
			t.Fatalf("client's stream: %v, %v", r, err)
		}
		both, err := w.stub.FullDuplexCall(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 20 {
			size := int32(i * 1000)
			if err := both.Send(&grpc_testing.StreamingOutputCallRequest{ResponseParameters: []*grpc_testing.ResponseParameters{{Size: size}}}); err != nil {
				t.Fatal(err)
			}
			if r, err := both.Recv(); err != nil || len(r.Payload.Body) != int(size) {
				t.Fatalf("both ways: %v", err)
			}
		}
		both.CloseSend()
		if _, err := both.Recv(); err != io.EOF {
			t.Fatalf("both ways end with %v", err)
		}
		eventually(t, "log", func() bool { return w.client.logged("POST /grpc.testing.TestService/FullDuplexCall HTTP/2", " 200 - ") })
		eventually(t, "counts", func() bool {
			var page strings.Builder
			w.client.proxy.Metrics(&page)
			return sumOf(page.String(), "istio_request_messages_total", `request_protocol="grpc"`) == 4+1+50+20 &&
				sumOf(page.String(), "istio_response_messages_total", `request_protocol="grpc"`) == 4+4+1+20 &&
				sumOf(page.String(), "istio_requests_total", `request_protocol="grpc"`, `grpc_response_status="0"`) == 7
		})
	})
}

// sumOf sums the samples of a family whose labels have all parts.
func sumOf(page, family string, parts ...string) (sum float64) {
lines:
	for line := range strings.SplitSeq(page, "\n") {
		if !strings.HasPrefix(line, family+"{") {
			continue
		}
		for _, p := range parts {
			if !strings.Contains(line, p) {
				continue lines
			}
		}
		var v float64
		fmt.Sscan(line[strings.LastIndexByte(line, ' ')+1:], &v)
		sum += v
	}
	return sum
}

func TestGRPCStatuses(t *testing.T) {
	grpcWays(t, func(t *testing.T, w *grpcWay) {
		for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
			const text = "grüße: 100 %\n"
			_, err := w.stub.UnaryCall(t.Context(), &grpc_testing.SimpleRequest{ResponseStatus: &grpc_testing.EchoStatus{Code: int32(code), Message: text}})
			if s := status.Convert(err); s.Code() != code || s.Message() != text {
				t.Errorf("%s came as %v", code, err)
			}
		}
		both, err := w.stub.FullDuplexCall(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		both.Send(&grpc_testing.StreamingOutputCallRequest{ResponseStatus: &grpc_testing.EchoStatus{Code: 9, Message: "early"}})
		if _, err := both.Recv(); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("an early status came as %v", err)
		}
		if _, err := w.stub.UnimplementedCall(t.Context(), &grpc_testing.Empty{}); status.Code(err) != codes.Unimplemented {
			t.Errorf("unimplemented: %v", err)
		}
	})
}

func TestGRPCCancellationAndDeadlines(t *testing.T) {
	grpcWays(t, func(t *testing.T, w *grpcWay) {
		wait := &grpc_testing.SimpleRequest{FillUsername: true}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { _, err := w.stub.UnaryCall(ctx, wait); done <- err }() // ends by cancel
		eventually(t, "the call", func() bool { return w.echo.calls.Load() == 1 })
		cancel()
		if err := <-done; status.Code(err) != codes.Canceled {
			t.Errorf("cancelled: %v", err)
		}
		eventually(t, "the server hears of it", func() bool { return w.echo.canceled.Load() == 1 })

		for w.echo.calls.Load() == 1 { // on a slow machine it may not arrive in time
			ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
			defer cancel()
			if _, err := w.stub.UnaryCall(ctx, wait); status.Code(err) != codes.DeadlineExceeded {
				t.Fatalf("deadline: %v", err)
			}
		}
		eventually(t, "the server hears of it", func() bool { return w.echo.canceled.Load() == w.echo.calls.Load() })
		before := w.echo.canceled.Load()
		if left := w.echo.deadline.Load(); left <= 0 || left > 1500 {
			t.Errorf("the server was told of %d ms", left)
		}

		ctx, cancel = context.WithCancel(t.Context())
		both, err := w.stub.FullDuplexCall(ctx)
		if err != nil {
			t.Fatal(err)
		}
		both.Send(&grpc_testing.StreamingOutputCallRequest{ResponseParameters: []*grpc_testing.ResponseParameters{{Size: 1}}})
		if _, err := both.Recv(); err != nil {
			t.Fatal(err)
		}
		cancel()
		eventually(t, "the server hears of the stream's end", func() bool { return w.echo.canceled.Load() > before })
		eventually(t, "log", func() bool { return w.client.logged("FullDuplexCall", " DR ") })
	})
}

func TestGRPCRetriesByStatus(t *testing.T) {
	grpcWays(t, func(t *testing.T, w *grpcWay) {
		w.echo.fail.Store(2)
		if _, err := w.stub.UnaryCall(t.Context(), &grpc_testing.SimpleRequest{}); err != nil {
			t.Errorf("after two failures: %v", err)
		}
		if n := w.echo.calls.Load(); n != 3 {
			t.Errorf("%d calls", n)
		}
		r := forwardTo("echo")
		r.Forward.Retry = istioRetries()
		r.Forward.Retry.On = conf.OnConnectFailure | conf.OnRefusedStream | conf.OnResetBeforeRequest
		w.client.knows("echo", 9080, r)
		w.echo.fail.Store(1)
		if _, err := w.stub.UnaryCall(t.Context(), &grpc_testing.SimpleRequest{}); status.Code(err) != codes.Unavailable {
			t.Errorf("repeated without being asked for it: %v", err)
		}
	})
}

func TestGRPCIsToldOfOurFailures(t *testing.T) {
	grpcWays(t, func(t *testing.T, w *grpcWay) {
		call := func() *status.Status {
			_, err := w.stub.UnaryCall(t.Context(), &grpc_testing.SimpleRequest{})
			return status.Convert(err)
		}
		abort := forwardTo("echo")
		abort.Fault = &conf.Fault{AbortGRPC: int(codes.ResourceExhausted), AbortFraction: 1e6}
		w.client.knows("echo", 9080, abort)
		if s := call(); s.Code() != codes.ResourceExhausted {
			t.Errorf("abort by gRPC status: %v", s.Err())
		}
		abort = forwardTo("echo")
		abort.Fault = &conf.Fault{AbortStatus: 403, AbortFraction: 1e6}
		w.client.knows("echo", 9080, abort)
		if s := call(); s.Code() != codes.PermissionDenied {
			t.Errorf("abort by HTTP status: %v", s.Err())
		}
		w.client.knows("echo", 9080, forwardTo("nowhere"))
		if s := call(); s.Code() != codes.Unavailable || !strings.Contains(s.Message(), "nowhere") {
			t.Errorf("no cluster: %v", s.Err())
		}
		w.client.knows("echo", 9080)
		if s := call(); s.Code() != codes.Unimplemented {
			t.Errorf("no route: %v", s.Err())
		}
		slow := forwardTo("echo")
		slow.Forward.Timeout = 50 * time.Millisecond
		w.client.knows("echo", 9080, slow)
		_, err := w.stub.UnaryCall(t.Context(), &grpc_testing.SimpleRequest{FillUsername: true})
		if status.Code(err) != codes.Unavailable && status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("time-out: %v", err)
		}
		eventually(t, "log", func() bool { return w.client.logged(" UT ") })
	})
}
