package identity

import (
	"crypto/x509"
	"testing"
	"time"
)

// TestVerifyRemembers: a chain that was verified is believed again, but no longer than its certificates are valid, for no other use,
// and by no other bundle.
func TestVerifyRemembers(t *testing.T) {
	a := newAuthority(t, "root")
	leaf := a.leaf(full, newKey(t), func(c *x509.Certificate) {
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	})
	chain := []*x509.Certificate{leaf}
	bundle := a.bundle("cluster.local")
	for range 2 {
		if p, err := bundle.Verify(chain, x509.ExtKeyUsageClientAuth, now); err != nil || p != full {
			t.Fatalf("%+v, %v", p, err)
		}
	}
	if n := len(bundle.known.chains); n != 1 {
		t.Fatalf("%d chains are remembered", n)
	}
	for _, c := range []struct {
		name  string
		b     *Bundle
		usage x509.ExtKeyUsage
		at    time.Time
	}{
		{"expired since", bundle, x509.ExtKeyUsageClientAuth, leaf.NotAfter.Add(time.Second)},
		{"before its time", bundle, x509.ExtKeyUsageClientAuth, leaf.NotBefore.Add(-time.Second)},
		{"another use", bundle, x509.ExtKeyUsageServerAuth, now},
		{"another bundle", newAuthority(t, "root").bundle("cluster.local"), x509.ExtKeyUsageClientAuth, now},
	} {
		if _, err := c.b.Verify(chain, c.usage, c.at); err == nil {
			t.Errorf("%s: accepted", c.name)
		}
	}
	for i := range maxKnown + 1 {
		bundle.known.add([32]byte{byte(i), byte(i >> 8), 1}, full, [][]*x509.Certificate{chain})
	}
	if n := len(bundle.known.chains); n > maxKnown {
		t.Errorf("%d chains are remembered", n)
	}
}

// TestRootsExpire: the window of a chain is that of the shortest-lived certificate, of the way that lasts longest.
func TestRootsExpire(t *testing.T) {
	at := func(from, until int) *x509.Certificate {
		return &x509.Certificate{NotBefore: now.Add(time.Duration(from)), NotAfter: now.Add(time.Duration(until))}
	}
	var k known
	leaf := at(-5, 50)
	k.add([32]byte{1}, full, [][]*x509.Certificate{{leaf, at(-20, 10)}, {leaf, at(-3, 40)}})
	for offset, want := range map[int]bool{-4: false, -3: true, 0: true, 40: true, 41: false} {
		if _, ok := k.get([32]byte{1}, now.Add(time.Duration(offset))); ok != want {
			t.Errorf("at %d: %v", offset, ok)
		}
	}
}
