package ca

import (
	"bufio"
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/weftmesh/weft/internal/identity"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const domain = "cluster.local"

// clock is a time that tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func workload(account string) identity.Peer {
	return identity.Peer{
		ID:       identity.ID{TrustDomain: domain, Namespace: "default", ServiceAccount: account},
		Workload: account + "-v1", Instance: account + "-v1-0", App: account, Version: "v1",
	}
}

func open(t *testing.T, dir string, o Options) *Authority {
	t.Helper()
	if o.TrustDomain == "" {
		o.TrustDomain = domain
	}
	a, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func request(t *testing.T, key crypto.Signer, template *x509.CertificateRequest) []byte {
	t.Helper()
	if template == nil {
		template = new(x509.CertificateRequest)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

func sign(t *testing.T, a *Authority, p identity.Peer, ttl time.Duration) *Issued {
	t.Helper()
	issued, err := a.Sign(request(t, newKey(t), nil), p, ttl, ProofJoinToken)
	if err != nil {
		t.Fatal(err)
	}
	return issued
}

func uri(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestOpenAgainVerifiesOldCertificates(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "ca")
	first, err := Open(dir, Options{TrustDomain: domain})
	if err != nil {
		t.Fatal(err)
	}
	old := sign(t, first, workload("reviews"), 0)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second := open(t, dir, Options{})
	if !bytes.Equal(first.RootsPEM(), second.RootsPEM()) {
		t.Error("the roots have changed")
	}
	got, err := second.Bundle().Verify(old.Chain, x509.ExtKeyUsageServerAuth, time.Now())
	if err != nil || got != workload("reviews") {
		t.Errorf("after a restart: %+v, %v", got, err)
	}
	for name, want := range map[string]os.FileMode{keyFile: 0o600, journalFile: 0o600, rootFile: 0o644, certFile: 0o644} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v; want mode %o", name, info, err, want)
		}
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v, %v", info, err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) > 0 {
		t.Errorf("temporary files are left: %v", left)
	}
}

func TestOpenRefuses(t *testing.T) {
	write := func(name, text string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			t.Helper()
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	mode := func(name string, m os.FileMode) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			t.Helper()
			if err := os.Chmod(filepath.Join(dir, name), m); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range []struct {
		name    string
		damage  func(*testing.T, string)
		options Options
		want    string // in the error
	}{
		{"group may read the key", mode(keyFile, 0o640), Options{}, "chmod 600"},
		{"world may read the key", mode(keyFile, 0o604), Options{}, "chmod 600"},
		{"others may write the directory", mode(".", 0o777), Options{}, "chmod go-w"},
		{"key is garbage", write(keyFile, "garbage"), Options{}, keyFile},
		{"key is cut off", write(keyFile, "-----BEGIN PRIVATE KEY-----\nMIGH"), Options{}, keyFile},
		{"key is empty", write(keyFile, ""), Options{}, keyFile},
		{"key is another's", func(t *testing.T, dir string) {
			der, err := x509.MarshalPKCS8PrivateKey(newKey(t))
			if err != nil {
				t.Fatal(err)
			}
			write(keyFile, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))(t, dir)
		}, Options{}, "not this certificate's"},
		{"key is gone", func(_ *testing.T, dir string) { _ = os.Remove(filepath.Join(dir, keyFile)) }, Options{}, keyFile},
		{"certificate is garbage", write(certFile, "garbage"), Options{}, certFile},
		{"certificate is gone", func(_ *testing.T, dir string) { _ = os.Remove(filepath.Join(dir, certFile)) }, Options{}, certFile},
		{"root is garbage", write(rootFile, "garbage"), Options{}, rootFile},
		{"root is another's", func(t *testing.T, dir string) {
			other := open(t, t.TempDir(), Options{})
			write(rootFile, string(other.RootsPEM()))(t, dir)
		}, Options{}, "does not lead to a root"},
		{"chain is garbage", write(chainFile, "garbage"), Options{}, chainFile},
		{"another trust domain", func(*testing.T, string) {}, Options{TrustDomain: "other.local"}, "trust domain"},
		{"no trust domain", func(*testing.T, string) {}, Options{TrustDomain: "Not Good"}, "trust domain"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "ca")
			open(t, dir, Options{})
			c.damage(t, dir)
			if c.options.TrustDomain == "" {
				c.options.TrustDomain = domain
			}
			a, err := Open(dir, c.options)
			if err == nil {
				_ = a.Close()
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %q does not say %q", err, c.want)
			}
		})
	}
}

// A start that was cut short is taken up again; whatever was written stays in use.
func TestOpenAfterCrash(t *testing.T) {
	for _, left := range [][]string{{keyFile}, {keyFile, certFile}} {
		whole, dir := t.TempDir(), t.TempDir()
		a := open(t, whole, Options{})
		for _, name := range left {
			text, err := os.ReadFile(filepath.Join(whole, name))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		b := open(t, dir, Options{})
		if !a.issuer.Load().certificate.PublicKey.(*ecdsa.PublicKey).Equal(b.issuer.Load().certificate.PublicKey) {
			t.Errorf("left %v: the key was replaced", left)
		}
	}
}

func TestOpenAtOnce(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	roots := make([]string, 8)
	for n := range roots {
		wg.Go(func() {
			a, err := Open(dir, Options{TrustDomain: domain})
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = a.Close() }()
			roots[n] = string(a.RootsPEM())
		})
	}
	wg.Wait()
	for _, r := range roots {
		if r != roots[0] || r == "" {
			t.Fatal("two processes that started at once have different roots")
		}
	}
}

// plugIn writes an intermediate under a root of its own, as an operator would, and gives the root.
func plugIn(t *testing.T, dir string, now time.Time, life time.Duration) *x509.Certificate {
	t.Helper()
	rootKey, key := newKey(t), newKey(t)
	ca := func(name string, parent *x509.Certificate, public crypto.PublicKey, d time.Duration) *x509.Certificate {
		template := &x509.Certificate{
			SerialNumber: big.NewInt(now.Unix()), Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(d),
			IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		}
		if parent == nil {
			parent = template
		}
		raw, err := x509.CreateCertificate(rand.Reader, template, parent, public, rootKey)
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(raw)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	root := ca("company root", nil, &rootKey.PublicKey, 100*life)
	intermediate := ca("mesh", root, &key.PublicKey, life)
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{
		rootFile: identity.EncodeCertificates(root), certFile: identity.EncodeCertificates(intermediate),
		chainFile: identity.EncodeCertificates(intermediate, root),
		keyFile:   pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestPluggedIn(t *testing.T) {
	dir, c := t.TempDir(), newClock()
	plugIn(t, dir, c.Now(), 48*time.Hour)
	a := open(t, dir, Options{Clock: c.Now, MaxLeafTTL: 1000 * time.Hour})
	issued := sign(t, a, workload("reviews"), 1000*time.Hour)
	if len(issued.Chain) != 2 {
		t.Fatalf("chain of %d certificates, want leaf and intermediate", len(issued.Chain))
	}
	if _, err := a.Bundle().Verify(issued.Chain, x509.ExtKeyUsageClientAuth, c.Now()); err != nil {
		t.Error(err)
	}
	if want := c.Now().Add(48 * time.Hour); !issued.Leaf.NotAfter.Equal(want) || !a.RootExpiry().Equal(want) {
		t.Errorf("leaf ends %v, authority %v; want both at the intermediate's end %v", issued.Leaf.NotAfter, a.RootExpiry(), want)
	}
	c.add(48*time.Hour + time.Second)
	if _, err := a.Sign(request(t, newKey(t), nil), workload("reviews"), 0, ProofJoinToken); !errors.Is(err, ErrIssuerExpired) {
		t.Errorf("after the issuer's end: %v", err)
	}
	if again, err := Open(dir, Options{TrustDomain: domain, Clock: c.Now}); err != nil {
		t.Errorf("an authority that has expired does not open: %v", err)
	} else {
		_ = again.Close()
	}
}

func TestReload(t *testing.T) {
	dir, c := t.TempDir(), newClock()
	oldRoot := plugIn(t, dir, c.Now(), 48*time.Hour)
	a := open(t, dir, Options{Clock: c.Now})
	before := sign(t, a, workload("reviews"), 0)

	if err := os.WriteFile(filepath.Join(dir, certFile), []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := a.Reload(); err == nil {
		t.Error("a broken certificate: no error")
	}
	sign(t, a, workload("reviews"), 0) // and it goes on as before

	newRoot := plugIn(t, dir, c.Now(), 96*time.Hour)
	both := identity.EncodeCertificates(oldRoot, newRoot)
	if err := os.WriteFile(filepath.Join(dir, rootFile), both, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := a.Reload(); err != nil {
		t.Fatal(err)
	}
	for name, issued := range map[string]*Issued{"old": before, "new": sign(t, a, workload("reviews"), 0)} {
		if _, err := a.Bundle().Verify(issued.Chain, x509.ExtKeyUsageClientAuth, c.Now()); err != nil {
			t.Errorf("%s certificate during the overlap: %v", name, err)
		}
	}
}

func TestSignTakesOnlyTheKey(t *testing.T) {
	c := newClock()
	a := open(t, t.TempDir(), Options{Clock: c.Now})
	key := newKey(t)
	basic, err := asn1.Marshal(struct{ CA bool }{true})
	if err != nil {
		t.Fatal(err)
	}
	admin, err := identity.EncodePeerExtension(workload("admin"))
	if err != nil {
		t.Fatal(err)
	}
	issued, err := a.Sign(request(t, key, &x509.CertificateRequest{
		Subject:  pkix.Name{CommonName: "admin"},
		DNSNames: []string{"istiod.istio-system.svc"},
		URIs:     []*url.URL{uri(t, workload("admin").ID.String())},
		ExtraExtensions: []pkix.Extension{
			{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Critical: true, Value: basic}, admin,
		},
	}), workload("reviews"), 0, ProofJoinToken)
	if err != nil {
		t.Fatal(err)
	}
	leaf := issued.Leaf
	got, err := a.Bundle().Verify(issued.Chain, x509.ExtKeyUsageClientAuth, c.Now())
	if err != nil || got != workload("reviews") {
		t.Errorf("certificate for %+v, %v", got, err)
	}
	if leaf.IsCA || len(leaf.DNSNames) != 0 || leaf.Subject.String() != "" || !key.PublicKey.Equal(leaf.PublicKey) {
		t.Errorf("the request shows through: CA=%v, names %v, subject %q", leaf.IsCA, leaf.DNSNames, leaf.Subject)
	}
	if want := c.Now().Add(-time.Minute); !leaf.NotBefore.Equal(want) {
		t.Errorf("begins %v, want %v", leaf.NotBefore, want)
	}
	if want := c.Now().Add(24 * time.Hour); !leaf.NotAfter.Equal(want) {
		t.Errorf("ends %v, want %v", leaf.NotAfter, want)
	}
}

func TestSignLifetime(t *testing.T) {
	c := newClock()
	a := open(t, t.TempDir(), Options{Clock: c.Now, LeafTTL: time.Hour, MaxLeafTTL: 2 * time.Hour, RootTTL: 100 * time.Hour})
	c.add(300 * time.Millisecond)
	for asked, want := range map[time.Duration]time.Duration{
		0: time.Hour, -time.Hour: time.Hour, time.Minute: time.Minute, 3 * time.Hour: 2 * time.Hour, 400 * time.Millisecond: 700 * time.Millisecond,
	} {
		got := sign(t, a, workload("reviews"), asked).Leaf.NotAfter.Sub(c.Now())
		if got < want || got > want+time.Second {
			t.Errorf("asked for %v: got %v, want %v to the next second", asked, got, want)
		}
	}
	c.add(99 * time.Hour)
	if got := sign(t, a, workload("reviews"), 2*time.Hour).Leaf.NotAfter; got.After(a.RootExpiry()) {
		t.Errorf("leaf ends %v, after its root %v", got, a.RootExpiry())
	}
}

func TestSignRefuses(t *testing.T) {
	a := open(t, t.TempDir(), Options{})
	good := request(t, newKey(t), nil)
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Skipf("this Go makes no weak keys to test with: %v", err)
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(good)
	forged := bytes.Clone(block.Bytes)
	forged[len(forged)-5] ^= 1
	for name, c := range map[string]struct {
		csr  []byte
		peer identity.Peer
	}{
		"empty":               {nil, workload("reviews")},
		"not PEM":             {[]byte("hello"), workload("reviews")},
		"a certificate":       {a.RootsPEM(), workload("reviews")},
		"too long":            {bytes.Repeat([]byte("x"), maxCSR+1), workload("reviews")},
		"no possession":       {pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: forged}), workload("reviews")},
		"RSA 1024":            {request(t, weak, nil), workload("reviews")},
		"P-224":               {request(t, p224, nil), workload("reviews")},
		"other trust domain":  {good, identity.Peer{ID: identity.ID{TrustDomain: "other", Namespace: "a", ServiceAccount: "b"}}},
		"no identity":         {good, identity.Peer{}},
		"bad service account": {good, workload("a/b")},
		"facts too long":      {good, identity.Peer{ID: workload("a").ID, App: strings.Repeat("a", 300)}},
		"the control plane's": {good, identity.Peer{ID: identity.ControlID(domain)}},
	} {
		if _, err := a.Sign(c.csr, c.peer, 0, ProofJoinToken); !errors.Is(err, ErrRequest) {
			t.Errorf("%s: %v, want ErrRequest", name, err)
		}
	}
}

func TestSignKeys(t *testing.T) {
	a := open(t, t.TempDir(), Options{})
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []crypto.Signer{newKey(t), ed, rsaKey} {
		if _, err := a.Sign(request(t, key, nil), workload("reviews"), 0, ProofJoinToken); err != nil {
			t.Errorf("%T: %v", key, err)
		}
	}
}

func TestSignAtOnce(t *testing.T) {
	dir := t.TempDir()
	a := open(t, dir, Options{JournalSize: 2000, JournalFiles: 100})
	var wg sync.WaitGroup
	var mu sync.Mutex
	issued := map[string]bool{}
	for range 8 {
		wg.Go(func() {
			for range 25 {
				i, err := a.Sign(request(t, newKey(t), nil), workload("reviews"), 0, ProofCertificate)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				issued[i.Leaf.SerialNumber.Text(16)] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(issued) != 200 {
		t.Errorf("%d different serial numbers, want 200", len(issued))
	}
	files, err := filepath.Glob(filepath.Join(dir, journalFile+"*"))
	if err != nil || len(files) < 10 {
		t.Errorf("journal files %v, %v; want rotation", files, err)
	}
	for _, f := range files {
		for _, e := range readJournal(t, f) {
			if e.Proof != ProofCertificate || e.ID != workload("reviews").ID.String() || e.Instance != "reviews-v1-0" || e.NotAfter.Before(e.Time) {
				t.Errorf("entry %+v", e)
			}
			delete(issued, e.Serial)
		}
	}
	if len(issued) != 0 {
		t.Errorf("%d certificates are not in the journal", len(issued))
	}
}

func readJournal(t *testing.T, path string) []Entry {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	var list []Entry
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var e Entry
		if err := json.Unmarshal(lines.Bytes(), &e); err == nil {
			list = append(list, e)
		}
	}
	return list
}

func TestJournalIsBounded(t *testing.T) {
	dir := t.TempDir()
	a := open(t, dir, Options{JournalSize: 500, JournalFiles: 2})
	for range 30 {
		sign(t, a, workload("reviews"), 0)
	}
	files, err := filepath.Glob(filepath.Join(dir, journalFile+"*"))
	if err != nil || len(files) != 3 {
		t.Errorf("journal files %v, %v; want the newest and two old ones", files, err)
	}
	for _, f := range files {
		if info, err := os.Stat(f); err != nil || info.Size() > 500 {
			t.Errorf("%s: %v, %v; want at most 500 bytes", f, info.Size(), err)
		}
	}
}

// A line that a crash cut off spoils nothing but itself, and nothing is issued that cannot be recorded.
func TestJournalFaults(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, journalFile)
	if err := os.WriteFile(path, []byte(`{"time":"2026-`), 0o600); err != nil {
		t.Fatal(err)
	}
	a := open(t, dir, Options{})
	sign(t, a, workload("reviews"), 0)
	if got := readJournal(t, path); len(got) != 1 {
		t.Errorf("%d entries, want 1", len(got))
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Sign(request(t, newKey(t), nil), workload("reviews"), 0, ProofJoinToken); err == nil {
		t.Error("issued without a journal")
	}
}

func TestRootWarning(t *testing.T) {
	var log bytes.Buffer
	c := newClock()
	a := open(t, t.TempDir(), Options{Clock: c.Now, RootTTL: 40 * day, Log: slog.New(slog.NewTextHandler(&log, nil))})
	warnings := func() int { return strings.Count(log.String(), "level=WARN") }
	sign(t, a, workload("reviews"), 0)
	if warnings() != 0 {
		t.Errorf("warned 40 days before: %s", &log)
	}
	c.add(11 * day)
	sign(t, a, workload("reviews"), 0)
	sign(t, a, workload("reviews"), 0)
	if warnings() != 1 {
		t.Errorf("%d warnings on the first day, want 1", warnings())
	}
	c.add(day)
	sign(t, a, workload("reviews"), 0)
	if warnings() != 2 {
		t.Errorf("%d warnings on the second day, want 2", warnings())
	}
}

func TestServing(t *testing.T) {
	c := newClock()
	a := open(t, t.TempDir(), Options{Clock: c.Now})
	s, err := a.ServingCertificate(identity.ControlID(domain), []string{"istiod.istio-system.svc", "localhost"})
	if err != nil {
		t.Fatal(err)
	}
	config := s.ServerTLS(identity.TLSOptions{})
	first, err := config.GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	pool := a.Bundle().Pool(domain)
	if _, err := first.Leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: "istiod.istio-system.svc", CurrentTime: c.Now()}); err != nil {
		t.Error(err)
	}
	if got := s.Source().Current().Self.ID; got != identity.ControlID(domain) {
		t.Errorf("serves as %s", got)
	}
	c.add(11 * time.Hour)
	if same, err := config.GetCertificate(nil); err != nil || same != first {
		t.Errorf("renewed too early, or failed: %v", err)
	}
	c.add(2 * time.Hour)
	if next, err := config.GetCertificate(nil); err != nil || next == first || !next.Leaf.NotAfter.After(first.Leaf.NotAfter) {
		t.Errorf("not renewed after half of its life: %v", err)
	}
	current := s.Source().Current()
	if err := a.Close(); err != nil { // from here on signing fails
		t.Fatal(err)
	}
	c.add(13 * time.Hour)
	if kept, err := config.GetCertificate(nil); err != nil || kept != current.Certificate {
		t.Errorf("the old certificate, still good, is not kept: %v", err)
	}
	c.add(24 * time.Hour)
	if _, err := config.GetCertificate(nil); err == nil {
		t.Error("an expired certificate is served")
	}
}
