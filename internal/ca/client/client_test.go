package client

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/test/bufconn"

	"github.com/weftmesh/weft/internal/ca"
	"github.com/weftmesh/weft/internal/identity"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const domain = "cluster.local"

var reviews = identity.Peer{
	ID:       identity.ID{TrustDomain: domain, Namespace: "default", ServiceAccount: "reviews"},
	Workload: "reviews-v1", Instance: "reviews-v1-0", App: "reviews", Version: "v1",
}

// control is a control plane that tests switch off and on.
type control struct {
	t         *testing.T
	authority *ca.Authority
	tokens    *ca.Tokens

	mu     sync.Mutex
	memory *bufconn.Listener // what dial reaches; nil while the control plane is down
}

// newControl opens the authority of a directory.
func newControl(t *testing.T, dir string) *control {
	t.Helper()
	a, err := ca.Open(dir, ca.Options{TrustDomain: domain})
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := ca.OpenTokens(dir, ca.TokenOptions{TrustDomain: domain})
	if err != nil {
		t.Fatal(err)
	}
	return &control{t: t, authority: a, tokens: tokens}
}

// serve starts the control plane on a listener and gives the function that stops it.
func (c *control) serve(l net.Listener) (stop func()) {
	c.t.Helper()
	serving, err := c.authority.ServingCertificate(identity.ControlID(domain), nil)
	if err != nil {
		c.t.Fatal(err)
	}
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(serving.ServerTLS(identity.TLSOptions{OptionalPeer: true, NextProtos: []string{"h2"}}))))
	ca.NewService(c.authority, ca.ServiceOptions{Verifiers: []ca.Verifier{c.tokens.Verifier()}}).Register(server)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	return func() { server.Stop(); <-ended }
}

func (c *control) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	c.mu.Lock()
	l := c.memory
	c.mu.Unlock()
	if l == nil {
		return nil, errors.New("connection refused")
	}
	return l.DialContext(ctx)
}

func (c *control) token() (string, error) { return c.tokens.Mint(reviews) }

func (c *control) options(stateDir string) Options {
	return Options{
		Control: "control:15012", TrustDomain: domain, Roots: c.authority.RootsPEM(), ID: reviews.ID, Token: c.token, StateDir: stateDir,
		Dial: c.dial, Log: slog.New(slog.DiscardHandler),
	}
}

func newClient(t *testing.T, o Options) *Client {
	t.Helper()
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// run runs a client until the returned function is called.
func run(t *testing.T, c *Client) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	return func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}

func isReady(c *Client) bool {
	select {
	case <-c.Ready():
		return true
	default:
		return false
	}
}

// A month passes: the certificate is always valid, with a third of its life left, and renewed between 12 and 16 hours.
func TestRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := newControl(t, t.TempDir())
		server.memory = bufconn.Listen(64 << 10)
		stopServer := server.serve(server.memory)
		c := newClient(t, server.options(t.TempDir()))
		if isReady(c) || c.Source().Current() != nil || !c.Expiry().IsZero() {
			t.Error("ready before it began")
		}
		stop := run(t, c)
		<-c.Ready()
		if got := c.Source().Current().Self; got != reviews {
			t.Errorf("we are %+v, want %+v", got, reviews)
		}
		for range 30 * 24 {
			time.Sleep(time.Hour)
			synctest.Wait()
			if left := time.Until(c.Expiry()); left < 7*time.Hour {
				t.Fatalf("%v left", left)
			}
		}
		if renewed, failed := c.Stats(); renewed < 30*24/16 || renewed > 30*24/12+1 || failed != 0 {
			t.Errorf("%d renewals and %d failures in 30 days", renewed, failed)
		}
		stop()
		stopServer()
		synctest.Wait()
	})
}

// The control plane is down when the proxy starts, comes, goes for a while, and comes again.
func TestControlPlaneDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, state := newControl(t, t.TempDir()), t.TempDir()
		c := newClient(t, server.options(state))
		stop := run(t, c)
		time.Sleep(time.Hour)
		synctest.Wait()
		_, failed := c.Stats()
		if isReady(c) || failed < 3600/31 || failed > 3600/15+20 {
			t.Errorf("ready=%v, %d attempts in an hour", isReady(c), failed)
		}
		on := func() (off func()) {
			l := bufconn.Listen(64 << 10)
			end := server.serve(l)
			server.mu.Lock()
			server.memory = l
			server.mu.Unlock()
			return func() {
				server.mu.Lock()
				server.memory = nil
				server.mu.Unlock()
				end()
			}
		}
		off := on()
		time.Sleep(31 * time.Second)
		synctest.Wait()
		if !isReady(c) {
			t.Fatal("not ready 31 s after the control plane came")
		}
		first := c.Source().Current()
		off()
		time.Sleep(20 * time.Hour) // past the renewal, within the certificate's life
		synctest.Wait()
		if c.Source().Current() != first {
			t.Error("the certificate that is still valid was dropped")
		}
		stop()

		// A restart with the control plane still down starts from what was stored.
		again := newClient(t, server.options(state))
		if !isReady(again) || !again.Expiry().Equal(first.NotAfter()) || again.Source().Current().Self != reviews {
			t.Error("the stored certificate was not taken up")
		}
		stop = run(t, again)
		off = on()
		time.Sleep(31 * time.Second)
		synctest.Wait()
		if !again.Expiry().After(first.NotAfter()) {
			t.Error("not renewed though it was due and the control plane is back")
		}
		stop()
		off()

		time.Sleep(25 * time.Hour)
		if late := newClient(t, server.options(state)); isReady(late) {
			t.Error("an expired certificate was taken up")
		}
		synctest.Wait()
	})
}

// Without a token, the certificate is proof enough; and with neither, it is not.
func TestCertificateIsTheOnlyProof(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := newControl(t, t.TempDir())
		server.memory = bufconn.Listen(64 << 10)
		off := server.serve(server.memory)
		o := server.options("")
		var used atomic.Bool
		o.Token = func() (string, error) {
			if used.Swap(true) {
				return "", nil
			}
			return server.token()
		}
		c := newClient(t, o)
		stop := run(t, c)
		<-c.Ready()
		time.Sleep(100 * time.Hour)
		synctest.Wait()
		if renewed, failed := c.Stats(); renewed < 6 || failed != 0 || c.Source().Current().Self != reviews {
			t.Errorf("%d renewals, %d failures, as %+v", renewed, failed, c.Source().Current().Self)
		}
		stop()
		off()
		synctest.Wait()
	})
}

// Whoever answers must be the control plane, and the certificate must be ours.
func TestWrongServer(t *testing.T) {
	for name, edit := range map[string]func(t *testing.T, o *Options){
		"another mesh": func(t *testing.T, o *Options) { o.Roots = newControl(t, t.TempDir()).authority.RootsPEM() },
		"another name": func(_ *testing.T, o *Options) { o.ControlID = reviews.ID },
		"not our name": func(_ *testing.T, o *Options) { o.ID.ServiceAccount = "ratings" },
		"token fails":  func(_ *testing.T, o *Options) { o.Token = func() (string, error) { return "", os.ErrNotExist } },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := newControl(t, t.TempDir())
				server.memory = bufconn.Listen(64 << 10)
				off := server.serve(server.memory)
				o := server.options("")
				edit(t, &o)
				c := newClient(t, o)
				stop := run(t, c)
				time.Sleep(time.Minute)
				synctest.Wait()
				if _, failed := c.Stats(); isReady(c) || failed == 0 {
					t.Errorf("ready=%v after %d failures", isReady(c), failed)
				}
				stop()
				off()
				synctest.Wait()
			})
		})
	}
}

func TestStateRefused(t *testing.T) {
	dir, state := t.TempDir(), t.TempDir()
	server := newControl(t, dir)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.serve(l)()
	o := server.options(state)
	o.Control, o.Dial = l.Addr().String(), nil
	first := newClient(t, o)
	stop := run(t, first)
	<-first.Ready()
	stop()
	path := filepath.Join(state, stateFile)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v; want mode 0600", info, err)
	}
	if !isReady(newClient(t, o)) {
		t.Fatal("the stored certificate is not taken up")
	}
	other := o
	other.Roots = newControl(t, t.TempDir()).authority.RootsPEM()
	renamed := o
	renamed.ID.ServiceAccount = "ratings"
	for _, c := range []struct {
		name    string
		text    string
		mode    os.FileMode
		options Options
	}{
		{"others may read it", string(good), 0o644, o},
		{"garbage", "garbage", 0o600, o},
		{"cut off", string(good[:len(good)/2]), 0o600, o},
		{"empty", "", 0o600, o},
		{"no key", strings.Replace(string(good), `"key":`, `"yek":`, 1), 0o600, o},
		{"another kind of key", strings.Replace(string(good), "PRIVATE KEY", "PUBLIC KEY", 2), 0o600, o},
		{"bootstrap has new roots", string(good), 0o600, other},
		{"we have a new name", string(good), 0o600, renamed},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, c.mode); err != nil {
				t.Fatal(err)
			}
			if isReady(newClient(t, c.options)) {
				t.Error("it was taken up")
			}
		})
	}
}

func TestOptions(t *testing.T) {
	roots := newControl(t, t.TempDir()).authority.RootsPEM()
	good := Options{Control: "localhost:15012", TrustDomain: domain, Roots: roots, ID: reviews.ID}
	newClient(t, good)
	for name, edit := range map[string]func(*Options){
		"no control":          func(o *Options) { o.Control = "" },
		"control has no port": func(o *Options) { o.Control = "localhost" },
		"relative socket":     func(o *Options) { o.Control = "unix://run/x" },
		"no roots":            func(o *Options) { o.Roots = nil },
		"no id":               func(o *Options) { o.ID = identity.ID{} },
		"id of another mesh":  func(o *Options) { o.ID.TrustDomain = "other" },
	} {
		o := good
		edit(&o)
		if _, err := New(o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// Certificates rotate every other second while connections are opened all the time, over a unix socket to the authority: none fails.
func TestRotationUnderTraffic(t *testing.T) {
	dir := t.TempDir()
	server := newControl(t, dir)
	path := filepath.Join(dir, "control.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer server.serve(l)()
	var clients [2]*Client
	for n := range clients {
		o := server.options("")
		o.Control, o.Dial, o.TTL, o.MinBackoff = "unix://"+path, nil, 4*time.Second, 10*time.Millisecond
		clients[n] = newClient(t, o)
		defer run(t, clients[n])()
		<-clients[n].Ready()
	}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", clients[0].Source().ServerTLS(identity.TLSOptions{}))
	if err != nil {
		t.Fatal(err)
	}
	// A machine that does not get to renew a certificate within its life fails connections, which says nothing of rotation.
	ends := func() time.Time {
		return slices.MinFunc([]time.Time{clients[0].Expiry(), clients[1].Expiry()}, time.Time.Compare)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			end := ends()
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			if _, err := conn.Write([]byte("x")); err != nil && time.Now().Before(end) {
				t.Errorf("server: %v", err)
			}
			_ = conn.Close()
		}
	}()
	config := clients[1].Source().ClientTLS(identity.ExactIDs(reviews.ID), identity.TLSOptions{})
	serials := map[string]bool{}
	opened := 0
	for deadline := time.Now().Add(3 * time.Minute); len(serials) < 4; opened++ {
		if time.Now().After(deadline) {
			t.Fatalf("only %d certificates seen over %d connections", len(serials), opened)
		}
		end := ends()
		conn, err := tls.Dial("tcp", listener.Addr().String(), config)
		if err == nil {
			if _, err = conn.Read(make([]byte, 1)); err != nil {
				_ = conn.Close()
			}
		}
		if err != nil {
			if time.Now().Before(end) {
				t.Fatalf("connection %d: %v", opened, err)
			}
			continue
		}
		serials[conn.ConnectionState().PeerCertificates[0].SerialNumber.String()] = true
		_ = conn.Close()
	}
	_ = listener.Close()
	<-served
	t.Logf("%d connections over %d certificates", opened, len(serials))
}

// TestErrorsNameWhoWasAsked: where connections go to one of several, whatever Options.Control says.
func TestErrorsNameWhoWasAsked(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() { // ends with the listener
		defer close(served)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.Close() // no certificate from here
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-served })
	o := newControl(t, t.TempDir()).options("")
	o.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
	}
	if _, err := newClient(t, o).obtain(t.Context(), 0); err == nil || !strings.Contains(err.Error(), l.Addr().String()) {
		t.Errorf("got %v, want it to name %s", err, l.Addr())
	}
}
