package rpc

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds the wait for something that must happen.
const patience = 3 * time.Minute

// rig is a server with a unary service and a stream that gives back what it gets.
type rig struct {
	t       *testing.T
	server  *Server
	address string
	root    *x509.CertPool
	issue   func(life time.Duration) tls.Certificate
	stop    func()

	mu      sync.Mutex
	echoes  []*echo
	closed  chan error // of echoes
	release chan struct{}
}

func newRig(t *testing.T, o Options) *rig {
	t.Helper()
	return newRigOn(t, o, func(l net.Listener) net.Listener { return l })
}

func newRigOn(t *testing.T, o Options, on func(net.Listener) net.Listener) *rig {
	t.Helper()
	r := &rig{t: t, closed: make(chan error, 10_000), release: make(chan struct{})}
	r.authority()
	own := r.issue(time.Hour)
	o.TLS = &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &own, nil }, ClientCAs: r.root,
		ClientAuth: tls.VerifyClientCertIfGiven, NextProtos: []string{"h2"}}
	o.Log = slog.New(slog.DiscardHandler)
	r.server = New(o)
	r.server.HandleStream("/test.Echo/Both", func(s *Stream) (Handler, error) {
		if len(s.Peer().Certificates) == 0 {
			return nil, status.Error(codes.Unauthenticated, "who are you")
		}
		e := &echo{rig: r, stream: s}
		r.mu.Lock()
		r.echoes = append(r.echoes, e)
		r.mu.Unlock()
		return e, nil
	})
	healthpb.RegisterHealthServer(unaryOnly{r.server}, &health{rig: r})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.address = l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.server.Run(ctx, on(l)) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(patience):
			t.Error("the server does not end")
		}
	})
	t.Cleanup(r.stop)
	return r
}

// unaryOnly leaves out the streams of a service, which the server would refuse to register.
type unaryOnly struct{ *Server }

func (u unaryOnly) RegisterService(d *grpc.ServiceDesc, service any) {
	without := *d
	without.Streams = nil
	u.Server.RegisterService(&without, service)
}

// authority makes certificates for server and clients.
func (r *rig) authority() {
	r.t.Helper()
	key := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			r.t.Fatal(err)
		}
		return k
	}
	rootKey := key()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, rootKey.Public(), rootKey)
	if err != nil {
		r.t.Fatal(err)
	}
	root, err := x509.ParseCertificate(der)
	if err != nil {
		r.t.Fatal(err)
	}
	r.root = x509.NewCertPool()
	r.root.AddCert(root)
	r.issue = func(life time.Duration) tls.Certificate {
		k := key()
		leaf := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(life),
			DNSNames: []string{"localhost"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
		der, err := x509.CreateCertificate(rand.Reader, leaf, root, k.Public(), rootKey)
		if err != nil {
			r.t.Fatal(err)
		}
		return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: k}
	}
}

// clientTLS is that of a client whose certificate lives so long; one of no life has none.
func (r *rig) clientTLS(life time.Duration) *tls.Config {
	c := &tls.Config{RootCAs: r.root, ServerName: "localhost", NextProtos: []string{"h2"}}
	if life > 0 {
		c.Certificates = []tls.Certificate{r.issue(life)}
	}
	return c
}

func (r *rig) dial(life time.Duration, o ...grpc.DialOption) *grpc.ClientConn {
	r.t.Helper()
	c, err := grpc.NewClient(r.address, append(o, grpc.WithTransportCredentials(credentials.NewTLS(r.clientTLS(life))))...)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	return c
}

// bytesCodec has messages as they are.
type bytesCodec struct{}

func (bytesCodec) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil } //nolint:forcetypeassert // it is a test's
func (bytesCodec) Unmarshal(b []byte, v any) error {
	*v.(*[]byte) = append([]byte(nil), b...)
	return nil
}
func (bytesCodec) Name() string { return "proto" }

// open begins an echo.
func (r *rig) open(ctx context.Context, c *grpc.ClientConn) grpc.ClientStream {
	r.t.Helper()
	s, err := r.stream(ctx, c)
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

// stream is open for who expects that it may fail.
func (r *rig) stream(ctx context.Context, c *grpc.ClientConn) (grpc.ClientStream, error) {
	return c.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/test.Echo/Both", grpc.ForceCodec(bytesCodec{}))
}

func (r *rig) context() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	r.t.Cleanup(cancel)
	return ctx
}

// echo gives back each message. "fail" ends the stream, "panic" fails badly, "many" gives a thousand messages.
type echo struct {
	rig    *rig
	stream *Stream

	mu      sync.Mutex // guards what follows
	pending [][]byte
	failed  error
}

func (e *echo) Receive(m []byte) error {
	switch string(m) {
	case "fail":
		return status.Error(codes.FailedPrecondition, "as you wish: 100 % é")
	case "panic":
		panic("as you wish")
	case "many":
		for range 1000 {
			e.say([]byte("one of many"))
		}
		return nil
	}
	e.say(append([]byte(nil), m...))
	return nil
}

func (e *echo) say(m []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.pending = append(e.pending, m)
}

func (e *echo) Next() (bool, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.failed != nil || len(e.pending) == 0 {
		return false, e.failed
	}
	m := e.pending[0]
	e.pending = e.pending[1:]
	begin := min(10, len(m)/2)
	e.stream.Send(m[:begin], m[begin:len(m)/2], m[len(m)/2:])
	return len(e.pending) > 0, nil
}

func (e *echo) Closed(reason error) { e.rig.closed <- reason }

// ended waits for the end of an echo.
func (r *rig) ended() error {
	r.t.Helper()
	select {
	case err := <-r.closed:
		return err
	case <-time.After(patience):
		r.t.Fatal("no stream has ended")
		return nil
	}
}

// health answers by what is asked for.
type health struct {
	healthpb.UnimplementedHealthServer
	rig *rig
}

func (h *health) Check(ctx context.Context, r *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	switch r.GetService() {
	case "slow":
		<-ctx.Done()
		return nil, status.FromContextError(ctx.Err()).Err()
	case "held":
		<-h.rig.release
	case "panic":
		panic("as you wish")
	case "who":
		p, _ := peer.FromContext(ctx)
		info, _ := p.AuthInfo.(credentials.TLSInfo)
		md, _ := metadata.FromIncomingContext(ctx)
		if len(info.State.PeerCertificates) != 1 || md.Get("authorization")[0] != "Bearer x" || md.Get("raw-bin")[0] != "\x00\xff" {
			return nil, errors.New("who is that")
		}
	case "unknown":
		return nil, status.Error(codes.NotFound, "no such service")
	}
	return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}, nil
}
