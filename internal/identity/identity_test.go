package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"
)

var (
	now  = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	full = Peer{
		ID:       ID{TrustDomain: "cluster.local", Namespace: "default", ServiceAccount: "bookinfo-reviews"},
		Workload: "reviews-v2", Instance: "reviews-v2-0", App: "reviews", Version: "v2", Service: "reviews", Revision: "v2", Cluster: "Kubernetes",
	}
)

func clock() time.Time { return now }

// authority is a root for tests.
type authority struct {
	t           *testing.T
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{t: t, key: newKey(t)}
	a.certificate = a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(1000 * time.Hour),
	}, a.key)
	return a
}

func (a *authority) sign(template *x509.Certificate, key *ecdsa.PrivateKey) *x509.Certificate {
	a.t.Helper()
	template.SerialNumber = big.NewInt(now.UnixNano())
	parent := a.certificate
	if parent == nil {
		parent = template
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	c, err := x509.ParseCertificate(raw)
	if err != nil {
		a.t.Fatal(err)
	}
	return c
}

// leaf signs a certificate of the mesh's form, changed by edit.
func (a *authority) leaf(p Peer, key *ecdsa.PrivateKey, edit func(*x509.Certificate)) *x509.Certificate {
	a.t.Helper()
	extension, err := EncodePeerExtension(p)
	if err != nil {
		a.t.Fatal(err)
	}
	uri, err := url.Parse(p.ID.String())
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{
		NotBefore: now.Add(-time.Minute), NotAfter: now.Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		URIs:        []*url.URL{uri}, ExtraExtensions: []pkix.Extension{extension}, BasicConstraintsValid: true,
	}
	if edit != nil {
		edit(template)
	}
	return a.sign(template, key)
}

func (a *authority) bundle(trustDomain string) *Bundle {
	a.t.Helper()
	b, err := ParseBundle(trustDomain, EncodeCertificates(a.certificate))
	if err != nil {
		a.t.Fatal(err)
	}
	return b
}

func (a *authority) material(p Peer, bundle *Bundle) *Material {
	a.t.Helper()
	key := newKey(a.t)
	m, err := NewMaterial([]*x509.Certificate{a.leaf(p, key, nil)}, key, bundle, now)
	if err != nil {
		a.t.Fatal(err)
	}
	return m
}

func TestParse(t *testing.T) {
	for uri, ok := range map[string]bool{
		"spiffe://cluster.local/ns/default/sa/reviews":                    true,
		"spiffe://td_1-x.example/ns/a.b/sa/C_d":                           true,
		"spiffe://cluster.local/ns/default/sa/reviews/":                   false,
		"spiffe://cluster.local/ns/default/sa/":                           false,
		"spiffe://Cluster.local/ns/default/sa/x":                          false,
		"spiffe://cluster.local:80/ns/default/sa/x":                       false,
		"spiffe://u@cluster.local/ns/default/sa/x":                        false,
		"spiffe://cluster.local/ns/../sa/x":                               false,
		"spiffe://cluster.local/ns/a/sa/b?x":                              false,
		"spiffe://cluster.local/ns/a/sa/b%2f":                             false,
		"spiffe://cluster.local/ns/a/sa/" + strings.Repeat("b", 2100):     false,
		"spiffe://" + strings.Repeat("t", 256) + "/ns/default/sa/reviews": false,
		"https://cluster.local/ns/default/sa/reviews":                     false,
		"": false,
	} {
		id, err := Parse(uri)
		if (err == nil) != ok {
			t.Errorf("Parse(%.80q): %v, want ok=%v", uri, err, ok)
		}
		if err == nil && id.String() != uri {
			t.Errorf("Parse(%q).String() = %q", uri, id)
		}
	}
}

func TestPeerExtension(t *testing.T) {
	a := newAuthority(t, "root")
	got, err := PeerFromCertificate(a.leaf(full, newKey(t), nil))
	if err != nil || got != full {
		t.Errorf("got %+v, %v; want %+v", got, err, full)
	}
	bare, err := PeerFromCertificate(a.leaf(full, newKey(t), func(c *x509.Certificate) { c.ExtraExtensions = nil }))
	if want := (Peer{ID: full.ID}); err != nil || bare != want {
		t.Errorf("without extension: %+v, %v; want %+v", bare, err, want)
	}
}

func TestPeerExtensionRefused(t *testing.T) {
	for name, p := range map[string]Peer{
		"too long":     {Workload: strings.Repeat("w", maxPeerFact+1)},
		"newline":      {App: "a\nb"},
		"not UTF-8":    {App: "\xff"},
		"all too long": {Workload: strings.Repeat("\"", 253), Instance: strings.Repeat("\"", 253), App: strings.Repeat("\"", 253), Version: strings.Repeat("\"", 253), Service: strings.Repeat("\"", 253)},
	} {
		if _, err := EncodePeerExtension(p); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	a := newAuthority(t, "root")
	for name, value := range map[string][]byte{
		"not ASN.1":    []byte("{}"),
		"not JSON":     {0x0c, 1, 'x'},
		"wrong type":   append([]byte{0x0c, 9}, `{"app":1}`...),
		"trailing":     append([]byte{0x0c, 2}, "{}x"...),
		"too long":     make([]byte, maxPeerExtension+1),
		"control byte": append([]byte{0x0c, 18}, `{"app":"a\u0000b"}`...),
	} {
		c := a.leaf(full, newKey(t), func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: PeerExtension, Value: value}}
		})
		if p, err := PeerFromCertificate(c); err == nil {
			t.Errorf("%s: accepted as %+v", name, p)
		}
	}
}

func FuzzPeerExtension(f *testing.F) {
	e, err := EncodePeerExtension(full)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(e.Value)
	f.Add([]byte{0x0c, 2, '{', '}'})
	f.Fuzz(func(t *testing.T, value []byte) {
		got, err := decodePeerExtension(value)
		if err != nil {
			return
		}
		// What is accepted stays what it is when written again, if its escapes still fit.
		again, err := EncodePeerExtension(got.peer(full.ID))
		if err != nil {
			return
		}
		back, err := decodePeerExtension(again.Value)
		if err != nil || back != got {
			t.Fatalf("%+v came back as %+v, %v", got, back, err)
		}
	})
}

func TestVerify(t *testing.T) {
	a, other := newAuthority(t, "root"), newAuthority(t, "other")
	bundle := a.bundle("cluster.local")
	foreign := full
	foreign.TrustDomain = "other.local"
	both, err := bundle.With("other.local", EncodeCertificates(other.certificate))
	if err != nil {
		t.Fatal(err)
	}
	second, err := url.Parse("spiffe://cluster.local/ns/x/sa/y")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		bundle *Bundle
		by     *authority
		peer   Peer
		edit   func(*x509.Certificate)
		ok     bool
	}{
		{name: "good", bundle: bundle, by: a, peer: full, ok: true},
		{name: "other domain", bundle: both, by: other, peer: foreign, ok: true},
		{name: "other root", bundle: bundle, by: other, peer: full},
		{name: "unknown domain", bundle: bundle, by: other, peer: foreign},
		{name: "a trusted root vouches for another domain", bundle: both, by: other, peer: full},
		{name: "expired", bundle: bundle, by: a, peer: full, edit: func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Second) }},
		{name: "not yet", bundle: bundle, by: a, peer: full, edit: func(c *x509.Certificate) { c.NotBefore = now.Add(time.Second) }},
		{name: "wrong usage", bundle: bundle, by: a, peer: full, edit: func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }},
		{name: "an authority", bundle: bundle, by: a, peer: full, edit: func(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign }},
		{name: "two names", bundle: bundle, by: a, peer: full, edit: func(c *x509.Certificate) { c.URIs = append(c.URIs, second) }},
		{name: "no name", bundle: bundle, by: a, peer: full, edit: func(c *x509.Certificate) { c.URIs, c.DNSNames = nil, []string{"reviews"} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := c.bundle.Verify([]*x509.Certificate{c.by.leaf(c.peer, newKey(t), c.edit)}, x509.ExtKeyUsageClientAuth, now)
			if (err == nil) != c.ok || (c.ok && got != c.peer) {
				t.Errorf("got %+v, %v; want ok=%v", got, err, c.ok)
			}
		})
	}
	if _, err := bundle.Verify(nil, x509.ExtKeyUsageClientAuth, now); err == nil {
		t.Error("an empty chain is accepted")
	}
}

func TestBundle(t *testing.T) {
	a, b := newAuthority(t, "a"), newAuthority(t, "b")
	text := append(EncodeCertificates(a.certificate), EncodeCertificates(b.certificate)...)
	bundle, err := ParseBundle("cluster.local", append([]byte("# both roots\n"), text...))
	if err != nil {
		t.Fatal(err)
	}
	if got := bundle.PEM("cluster.local"); string(got) != string(text) {
		t.Errorf("PEM does not come back:\n%s", got)
	}
	if next, err := bundle.With("x.local", text); err != nil || len(next.TrustDomains()) != 2 || len(bundle.TrustDomains()) != 1 {
		t.Errorf("With changed its receiver or lost a domain: %v", err)
	}
	leaf := a.leaf(full, newKey(t), nil)
	for name, text := range map[string]string{
		"empty":   "",
		"leaf":    string(EncodeCertificates(leaf)),
		"key":     "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
		"garbage": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
		"cut":     string(text[:len(text)-40]),
	} {
		if _, err := ParseBundle("cluster.local", []byte(text)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := ParseBundle("Bad Domain", text); err == nil {
		t.Error("bad trust domain: no error")
	}
}

// pair gives the two ends of a real connection; an unbuffered net.Pipe would block an end that is refused while it writes.
func pair(t *testing.T) (server, client net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if client, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return server, client
}

// handshake connects a client to a server and gives what each of them says.
func handshake(t *testing.T, server, client *tls.Config) (peer Peer, serverErr, clientErr error) {
	t.Helper()
	s, c := pair(t)
	defer func() { _ = s.Close(); _ = c.Close() }()
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn := tls.Server(s, server)
		if serverErr = conn.Handshake(); serverErr != nil {
			_ = s.Close()
			return
		}
		peer, serverErr = PeerOf(conn.ConnectionState())
		if serverErr == nil {
			_, serverErr = conn.Write([]byte("x"))
		}
	}()
	conn := tls.Client(c, client)
	if clientErr = conn.Handshake(); clientErr == nil {
		// In TLS 1.3 the client learns of a refused certificate with its first read.
		_, clientErr = conn.Read(make([]byte, 1))
	}
	_ = c.Close()
	<-done
	return peer, serverErr, clientErr
}

func source(m *Material) *Source {
	s := new(Source)
	if m != nil {
		s.Publish(m)
	}
	return s
}

func TestHandshake(t *testing.T) {
	a, other := newAuthority(t, "root"), newAuthority(t, "other")
	bundle := a.bundle("cluster.local")
	client := full
	client.ServiceAccount, client.Workload = "productpage", "productpage-v1"
	server := source(a.material(full, bundle))
	refuse := func(ID) error { return errors.New("not you") }
	o := TLSOptions{Time: clock}
	for _, c := range []struct {
		name           string
		server, client *tls.Config
		want           Peer
		ok             bool
	}{
		{"exact id", server.ServerTLS(o), source(a.material(client, bundle)).ClientTLS(ExactIDs(full.ID), o), client, true},
		{"any id", server.ServerTLS(o), source(a.material(client, bundle)).ClientTLS(AnyID, o), client, true},
		{"another server than meant", server.ServerTLS(o), source(a.material(client, bundle)).ClientTLS(ExactIDs(client.ID), o), Peer{}, false},
		{"nobody is meant", server.ServerTLS(o), source(a.material(client, bundle)).ClientTLS(nil, o), Peer{}, false},
		{"server refuses", server.ServerTLS(TLSOptions{Time: clock, Verify: refuse}), source(a.material(client, bundle)).ClientTLS(AnyID, o), Peer{}, false},
		{"client of another root", server.ServerTLS(o), source(mixed(other.material(client, other.bundle("cluster.local")), bundle)).ClientTLS(AnyID, o), Peer{}, false},
		{"server of another root", source(mixed(other.material(full, other.bundle("cluster.local")), bundle)).ServerTLS(o), source(a.material(client, bundle)).ClientTLS(AnyID, o), Peer{}, false},
		{"no client certificate", server.ServerTLS(o), source(&Material{Bundle: bundle}).ClientTLS(AnyID, o), Peer{}, false},
		{"optional client certificate", server.ServerTLS(TLSOptions{Time: clock, OptionalPeer: true}), source(&Material{Bundle: bundle}).ClientTLS(AnyID, o), Peer{}, true},
		{"optional but bad", server.ServerTLS(TLSOptions{Time: clock, OptionalPeer: true}), source(mixed(other.material(client, other.bundle("cluster.local")), bundle)).ClientTLS(AnyID, o), Peer{}, false},
		{"server has nothing yet", source(nil).ServerTLS(o), source(a.material(client, bundle)).ClientTLS(AnyID, o), Peer{}, false},
		{"client has nothing yet", server.ServerTLS(o), source(nil).ClientTLS(AnyID, o), Peer{}, false},
		{"TLS 1.2 to a sidecar", server.ServerTLS(o), tls12(source(a.material(client, bundle)).ClientTLS(AnyID, o)), Peer{}, false},
		{"TLS 1.2 where allowed", server.ServerTLS(TLSOptions{Time: clock, MinVersion: tls.VersionTLS12}), tls12(source(a.material(client, bundle)).ClientTLS(AnyID, o)), client, true},
		{"ALPN", server.ServerTLS(TLSOptions{Time: clock, NextProtos: []string{"istio-h2"}}), source(a.material(client, bundle)).ClientTLS(AnyID, TLSOptions{Time: clock, NextProtos: []string{"istio", "istio-h2"}}), client, true},
		{"no common ALPN", server.ServerTLS(TLSOptions{Time: clock, NextProtos: []string{"istio-h2"}}), source(a.material(client, bundle)).ClientTLS(AnyID, TLSOptions{Time: clock, NextProtos: []string{"h2"}}), Peer{}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			peer, serverErr, clientErr := handshake(t, c.server, c.client)
			if ok := serverErr == nil && clientErr == nil; ok != c.ok {
				t.Fatalf("server: %v, client: %v; want ok=%v", serverErr, clientErr, c.ok)
			}
			if !c.ok && clientErr == nil {
				t.Errorf("the client believes in a connection that the server refused: %v", serverErr)
			}
			if c.ok && peer != c.want {
				t.Errorf("the server sees %+v, want %+v", peer, c.want)
			}
		})
	}
}

// mixed shows one authority's certificate while trusting another's roots.
func mixed(m *Material, bundle *Bundle) *Material {
	return &Material{Certificate: m.Certificate, Self: m.Self, Bundle: bundle}
}

func tls12(c *tls.Config) *tls.Config {
	c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	return c
}

// A configuration made once takes every new generation, and a removed root ends trust at the next handshake.
func TestRotation(t *testing.T) {
	a, b := newAuthority(t, "a"), newAuthority(t, "b")
	onlyA, onlyB := a.bundle("cluster.local"), b.bundle("cluster.local")
	overlap, err := onlyA.With("cluster.local", append(onlyA.PEM("cluster.local"), onlyB.PEM("cluster.local")...))
	if err != nil {
		t.Fatal(err)
	}
	server, client := source(a.material(full, onlyA)), source(a.material(full, onlyA))
	s, c := server.ServerTLS(TLSOptions{Time: clock}), client.ClientTLS(ExactIDs(full.ID), TLSOptions{Time: clock})
	for _, step := range []struct {
		name           string
		server, client *Material
		ok             bool
	}{
		{"one root", a.material(full, onlyA), a.material(full, onlyA), true},
		{"new leaf", a.material(full, onlyA), a.material(full, onlyA), true},
		{"overlap reaches the server", a.material(full, overlap), a.material(full, onlyA), true},
		{"overlap reaches the client", a.material(full, overlap), a.material(full, overlap), true},
		{"server has a leaf of the new root", b.material(full, overlap), a.material(full, overlap), true},
		{"client has one too", b.material(full, overlap), b.material(full, overlap), true},
		{"old root removed", b.material(full, onlyB), b.material(full, onlyB), true},
		{"server on the old root", mixed(a.material(full, onlyA), onlyB), b.material(full, onlyB), false},
		{"client on the old root", b.material(full, onlyB), mixed(a.material(full, onlyA), onlyB), false},
	} {
		server.Publish(step.server)
		client.Publish(step.client)
		_, serverErr, clientErr := handshake(t, s, c)
		if ok := serverErr == nil && clientErr == nil; ok != step.ok {
			t.Errorf("%s: server: %v, client: %v; want ok=%v", step.name, serverErr, clientErr, step.ok)
		}
	}
}

// Sessions are not resumed; and were somebody to turn that on, a resumed one would still be verified against what holds now.
func TestResumption(t *testing.T) {
	a, b := newAuthority(t, "a"), newAuthority(t, "b")
	onlyA, onlyB := a.bundle("cluster.local"), b.bundle("cluster.local")
	for _, c := range []struct {
		name    string
		on      bool
		between func(server, client *Source, clock *time.Time)
		resumed bool
		ok      bool
	}{
		{name: "off", resumed: false, ok: true},
		{name: "on, nothing changed", on: true, resumed: true, ok: true},
		{name: "on, root gone at the client", on: true, between: func(_, client *Source, _ *time.Time) { client.Publish(b.material(full, onlyB)) }},
		{name: "on, root gone at the server", on: true, between: func(server, _ *Source, _ *time.Time) { server.Publish(b.material(full, onlyB)) }},
		{name: "on, certificates expired", on: true, between: func(_, _ *Source, clock *time.Time) { *clock = clock.Add(2 * time.Hour) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			at := now
			o := TLSOptions{Time: func() time.Time { return at }, ServerName: "x"}
			server, client := source(a.material(full, onlyA)), source(a.material(full, onlyA))
			s, k := server.ServerTLS(o), client.ClientTLS(AnyID, o)
			resumed := false
			verify := k.VerifyConnection
			k.VerifyConnection = func(state tls.ConnectionState) error {
				resumed = state.DidResume
				return verify(state)
			}
			if c.on {
				s.SessionTicketsDisabled, k.SessionTicketsDisabled = false, false
				k.ClientSessionCache = tls.NewLRUClientSessionCache(8)
			}
			if _, serverErr, clientErr := handshake(t, s, k); serverErr != nil || clientErr != nil {
				t.Fatal(serverErr, clientErr)
			}
			if c.between != nil {
				c.between(server, client, &at)
			}
			_, serverErr, clientErr := handshake(t, s, k)
			if ok := serverErr == nil && clientErr == nil; ok != c.ok || resumed != c.resumed && c.ok {
				t.Errorf("server: %v, client: %v, resumed=%v; want ok=%v, resumed=%v", serverErr, clientErr, resumed, c.ok, c.resumed)
			}
		})
	}
}

func TestNewMaterial(t *testing.T) {
	a := newAuthority(t, "root")
	key := newKey(t)
	leaf := a.leaf(full, key, nil)
	if _, err := NewMaterial([]*x509.Certificate{leaf}, newKey(t), a.bundle("cluster.local"), now); err == nil {
		t.Error("another key: no error")
	}
	if _, err := NewMaterial([]*x509.Certificate{leaf}, key, a.bundle("cluster.local"), now.Add(2*time.Hour)); err == nil {
		t.Error("expired: no error")
	}
	if _, err := NewMaterial([]*x509.Certificate{leaf}, key, newAuthority(t, "x").bundle("cluster.local"), now); err == nil {
		t.Error("another root: no error")
	}
	var none *Material
	if !none.NotAfter().IsZero() {
		t.Error("no material has an expiry")
	}
}

func BenchmarkHandshake(b *testing.B) {
	t := new(testing.T)
	a := newAuthority(t, "root")
	bundle := a.bundle("cluster.local")
	server := source(a.material(full, bundle)).ServerTLS(TLSOptions{Time: clock})
	client := source(a.material(full, bundle)).ClientTLS(AnyID, TLSOptions{Time: clock})
	for b.Loop() {
		if _, s, c := handshake(t, server, client); s != nil || c != nil {
			b.Fatal(s, c)
		}
	}
}
