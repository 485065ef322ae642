package control

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weftmesh/weft/internal/ca"
	"github.com/weftmesh/weft/internal/control/rpc"
	"github.com/weftmesh/weft/internal/identity"
)

// authority opens one that does not outlive the test.
func authority(t *testing.T) *ca.Authority {
	t.Helper()
	a, err := ca.Open(t.TempDir(), ca.Options{TrustDomain: "cluster.local", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	return a
}

// workload gives a certificate of an authority.
func workload(t *testing.T, a *ca.Authority) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	peer := identity.Peer{ID: identity.ID{TrustDomain: "cluster.local", Namespace: "default", ServiceAccount: "a"}}
	issued, err := a.Sign(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr}), peer, time.Hour, ca.ProofJoinToken)
	if err != nil {
		t.Fatal(err)
	}
	m, err := identity.NewMaterial(issued.Chain, key, issued.Bundle, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return m.Certificate
}

// refusing is a server for proxies by an authority, at a time of its own; heard receives after each refusal.
func refusing(t *testing.T, a *ca.Authority, now func() time.Time) (address string, count *prometheus.CounterVec, heard <-chan struct{}) {
	t.Helper()
	serving, err := a.ServingCertificate(identity.ControlID("cluster.local"), nil)
	if err != nil {
		t.Fatal(err)
	}
	count = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "refused"}, []string{"reason"})
	r, done := newRefusals(slog.New(slog.DiscardHandler), count), make(chan struct{}, 1)
	server := rpc.New(rpc.Options{TLS: markCertificates(serving.ServerTLS(identity.TLSOptions{NextProtos: []string{"h2"}, OptionalPeer: true, Time: now})),
		Log: slog.New(slog.DiscardHandler), Refused: func(peer net.Addr, err error) { r.take(peer, err); done <- struct{}{} }})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx, l) }() // ends with the test
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String(), count, done
}

// TestRefusedHandshakes makes connections that do not come to be, each for another reason.
func TestRefusedHandshakes(t *testing.T) {
	own, foreign := authority(t), authority(t)
	tomorrow := func() time.Time { return time.Now().Add(24 * time.Hour) }
	speak := func(change func(*tls.Config)) func(*testing.T, net.Conn) {
		return func(_ *testing.T, conn net.Conn) {
			c := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}
			change(c)
			client := tls.Client(conn, c)
			if client.Handshake() == nil {
				_, _ = client.Read(make([]byte, 1)) // until the server has answered
			}
		}
	}
	for reason, d := range map[string]struct {
		now  func() time.Time
		dial func(*testing.T, net.Conn)
	}{
		refusedExpired:  {tomorrow, speak(func(c *tls.Config) { c.Certificates = []tls.Certificate{*workload(t, own)} })},
		refusedUnknown:  {time.Now, speak(func(c *tls.Config) { c.Certificates = []tls.Certificate{*workload(t, foreign)} })},
		refusedByClient: {time.Now, speak(func(c *tls.Config) { c.InsecureSkipVerify, c.ServerName = false, "control" })},
		refusedNoHTTP2:  {time.Now, speak(func(c *tls.Config) { c.NextProtos = nil })},
		refusedLeft:     {time.Now, func(*testing.T, net.Conn) {}},
		refusedTLS: {time.Now, func(t *testing.T, conn net.Conn) {
			if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
				t.Error(err)
			}
		}},
	} {
		t.Run(reason, func(t *testing.T) {
			address, count, heard := refusing(t, own, d.now)
			conn, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			d.dial(t, conn)
			_ = conn.Close()
			select {
			case <-heard:
			case <-time.After(patience):
				t.Fatal("nothing was refused")
			}
			registry := prometheus.NewRegistry()
			registry.MustRegister(count)
			all, err := registry.Gather()
			if err != nil || len(all) != 1 || len(all[0].GetMetric()) != 1 {
				t.Fatalf("counted %v, %v", all, err)
			}
			if m := all[0].GetMetric()[0]; m.GetLabel()[0].GetValue() != reason || m.GetCounter().GetValue() != 1 {
				t.Errorf("counted %v", m)
			}
		})
	}
}

// TestRefusalsAreNotRepeated: of each reason one line a minute, which says how many there were besides.
func TestRefusalsAreNotRepeated(t *testing.T) {
	r := newRefusals(nil, nil)
	start := time.Now()
	for i, step := range []struct {
		reason string
		after  time.Duration
		more   int
		due    bool
	}{{"a", 0, 0, true}, {"a", time.Second, 0, false}, {"b", time.Second, 0, true}, {"a", 59 * time.Second, 0, false}, {"a", time.Minute, 2, true},
		{"a", 3 * time.Minute, 0, true}} {
		if more, due := r.due(step.reason, start.Add(step.after)); more != step.more || due != step.due {
			t.Errorf("step %d: %d, %v", i, more, due)
		}
	}
}
