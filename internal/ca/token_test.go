package ca

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/weftmesh/weft/internal/identity"
)

func openTokens(t testing.TB, dir string, o TokenOptions) *Tokens {
	t.Helper()
	if o.TrustDomain == "" {
		o.TrustDomain = domain
	}
	tokens, err := OpenTokens(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return tokens
}

func mint(t testing.TB, tokens *Tokens, p identity.Peer) string {
	t.Helper()
	token, err := tokens.Mint(p)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestTokens(t *testing.T) {
	dir, c := t.TempDir(), newClock()
	full := workload("reviews")
	full.Service, full.Revision, full.Cluster = "reviews", "v1", "Kubernetes"
	token := mint(t, openTokens(t, dir, TokenOptions{Clock: c.Now}), full)
	tokens := openTokens(t, dir, TokenOptions{Clock: c.Now}) // the control plane was restarted
	for _, at := range []struct {
		after time.Duration
		ok    bool
	}{{-50 * time.Second, true}, {-2 * time.Minute, false}, {0, true}, {30*day + 30*time.Second, true}, {30*day + 2*time.Minute, false}} {
		c.add(at.after)
		got, err := tokens.Verify(token)
		if (err == nil) != at.ok || (at.ok && got != full) {
			t.Errorf("%v after it was minted: %+v, %v; want ok=%v", at.after, got, err, at.ok)
		}
		if err != nil && (!errors.Is(err, ErrToken) || strings.Contains(err.Error(), token)) {
			t.Errorf("error %v", err)
		}
		c.add(-at.after)
	}
}

func TestTokensRefused(t *testing.T) {
	dir := t.TempDir()
	tokens := openTokens(t, dir, TokenOptions{})
	key, err := loadKey(filepath.Join(dir, tokenFile))
	if err != nil {
		t.Fatal(err)
	}
	good := func() tokenClaims {
		return tokenClaims{Claims: jwt.Claims{
			Issuer: "spiffe://" + domain, Subject: workload("reviews").ID.String(), Audience: jwt.Audience{tokenAudience},
			Expiry: jwt.NewNumericDate(time.Now().Add(time.Hour)),
		}}
	}
	forge := func(algorithm jose.SignatureAlgorithm, key any, edit func(*tokenClaims)) string {
		s, err := jose.NewSigner(jose.SigningKey{Algorithm: algorithm, Key: key}, nil)
		if err != nil {
			t.Fatal(err)
		}
		claims := good()
		if edit != nil {
			edit(&claims)
		}
		token, err := jwt.Signed(s).Claims(claims).Serialize()
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	ours := func(edit func(*tokenClaims)) string { return forge(jose.ES256, key, edit) }
	if _, err := tokens.Verify(ours(nil)); err != nil {
		t.Fatalf("the pattern itself: %v", err)
	}
	parts := strings.Split(ours(nil), ".")
	for name, token := range map[string]string{
		"empty":            "",
		"garbage":          "a.b.c",
		"too long":         strings.Repeat("a", maxToken+1),
		"no signature":     parts[0] + "." + parts[1] + ".",
		"algorithm none":   "eyJhbGciOiJub25lIn0." + parts[1] + ".",
		"another's key":    mint(t, openTokens(t, t.TempDir(), TokenOptions{}), workload("reviews")),
		"HMAC":             forge(jose.HS256, make([]byte, 32), nil),
		"other audience":   ours(func(c *tokenClaims) { c.Audience = jwt.Audience{"api"} }),
		"no audience":      ours(func(c *tokenClaims) { c.Audience = nil }),
		"other issuer":     ours(func(c *tokenClaims) { c.Issuer = "spiffe://other" }),
		"no expiry":        ours(func(c *tokenClaims) { c.Expiry = nil }),
		"other domain":     ours(func(c *tokenClaims) { c.Subject = "spiffe://other/ns/a/sa/b" }),
		"no SPIFFE":        ours(func(c *tokenClaims) { c.Subject = "reviews" }),
		"facts too long":   ours(func(c *tokenClaims) { c.Peer.App = strings.Repeat("a", 300) }),
		"newline in facts": ours(func(c *tokenClaims) { c.Peer.App = "a\nb" }),
	} {
		if p, err := tokens.Verify(token); !errors.Is(err, ErrToken) {
			t.Errorf("%s: %+v, %v; want ErrToken", name, p, err)
		}
	}
	for name, p := range map[string]identity.Peer{
		"control plane": {ID: identity.ControlID(domain)},
		"other domain":  {ID: identity.ID{TrustDomain: "other", Namespace: "a", ServiceAccount: "b"}},
		"nobody":        {},
	} {
		if _, err := tokens.Mint(p); err == nil {
			t.Errorf("minted for %s", name)
		}
	}
}

func TestTokenKeyMode(t *testing.T) {
	dir := t.TempDir()
	openTokens(t, dir, TokenOptions{})
	path := filepath.Join(dir, tokenFile)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenTokens(dir, TokenOptions{TrustDomain: domain}); err == nil {
		t.Error("a key that everybody may read: no error")
	}
}

func FuzzToken(f *testing.F) {
	tokens := openTokens(f, f.TempDir(), TokenOptions{})
	good := mint(f, tokens, workload("reviews"))
	signed := good[:strings.LastIndex(good, ".")]
	f.Add(good)
	f.Add("eyJhbGciOiJub25lIn0.e30.")
	f.Add("{}")
	f.Fuzz(func(t *testing.T, token string) {
		// Whatever is accepted has what we signed; the signature's own encoding may vary in its unused bits.
		if p, err := tokens.Verify(token); err == nil && (p != workload("reviews") || !strings.HasPrefix(strings.TrimSpace(token), signed)) {
			t.Fatalf("%q is accepted as %+v", token, p)
		}
	})
}
