package ca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/weftmesh/weft/internal/identity"
)

const (
	tokenFile = "token-key.pem"
	// tokenAudience keeps a join token from being good for anything but the authority.
	tokenAudience = "weft-ca"
	maxToken      = 8 << 10
)

// ErrToken is wrapped by every error of Tokens.Verify.
var ErrToken = errors.New("join token refused")

// TokenOptions of OpenTokens. Zero fields take their defaults.
type TokenOptions struct {
	TrustDomain string           // required
	Clock       func() time.Time // time.Now
	TTL         time.Duration    // 30 days: a workload may restart that long with the token it was given
	Leeway      time.Duration    // 1 min: how far clocks may differ
}

// Tokens mints and verifies join tokens: JSON web tokens signed with ES256 whose claims are the identity.Peer that the bearer
// may have a certificate for. Nothing is stored but the key, so tokens outlive restarts. It is safe for concurrent use.
type Tokens struct {
	options TokenOptions
	signer  jose.Signer
	key     *ecdsa.PublicKey
}

// OpenTokens loads the tokens' key from the authority's directory, or makes it.
func OpenTokens(dir string, o TokenOptions) (*Tokens, error) {
	if o.TrustDomain == "" {
		return nil, errors.New("ca: tokens: trust domain is required")
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.TTL <= 0 {
		o.TTL = 30 * day
	}
	if o.Leeway <= 0 {
		o.Leeway = time.Minute
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}
	if err := checkDir(dir); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, tokenFile)
	loaded, err := loadOrCreateKey(path)
	if err != nil {
		return nil, err
	}
	key, ok := loaded.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, fmt.Errorf("ca: %s: want an ECDSA P-256 key", path)
	}
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return nil, fmt.Errorf("ca: tokens: %w", err)
	}
	return &Tokens{options: o, signer: s, key: &key.PublicKey}, nil
}

// peerClaims are the private claims; the identity itself is the subject.
type peerClaims struct {
	Workload string `json:"workload,omitempty"`
	Instance string `json:"instance,omitempty"`
	App      string `json:"app,omitempty"`
	Version  string `json:"version,omitempty"`
	Service  string `json:"service,omitempty"`
	Revision string `json:"revision,omitempty"`
	Cluster  string `json:"cluster,omitempty"`
}

type tokenClaims struct {
	jwt.Claims
	Peer peerClaims `json:"peer"`
}

// Mint gives a token for a workload. Whoever has it gets certificates for that workload until the token expires.
func (t *Tokens) Mint(peer identity.Peer) (string, error) {
	if err := identity.ValidatePeer(peer); err != nil {
		return "", fmt.Errorf("ca: token: %w", err)
	}
	if peer.TrustDomain != t.options.TrustDomain {
		return "", fmt.Errorf("ca: token: %s is not of trust domain %q", peer.ID, t.options.TrustDomain)
	}
	if err := refuseReserved(peer.ID); err != nil {
		return "", fmt.Errorf("ca: token: %w", err)
	}
	now := t.options.Clock()
	claims := tokenClaims{
		Claims: jwt.Claims{
			Issuer: t.issuer(), Subject: peer.ID.String(), Audience: jwt.Audience{tokenAudience}, ID: rand.Text(),
			IssuedAt: jwt.NewNumericDate(now), NotBefore: jwt.NewNumericDate(now), Expiry: jwt.NewNumericDate(now.Add(t.options.TTL)),
		},
		Peer: peerClaims{
			Workload: peer.Workload, Instance: peer.Instance, App: peer.App, Version: peer.Version, Service: peer.Service,
			Revision: peer.Revision, Cluster: peer.Cluster,
		},
	}
	token, err := jwt.Signed(t.signer).Claims(claims).Serialize()
	if err != nil {
		return "", fmt.Errorf("ca: token for %s: %w", peer.ID, err)
	}
	return token, nil
}

func (t *Tokens) issuer() string { return "spiffe://" + t.options.TrustDomain }

// Verify says for whom a token was minted. Its errors wrap ErrToken and do not contain the token.
func (t *Tokens) Verify(token string) (identity.Peer, error) {
	claims, err := t.claims(token)
	if err != nil {
		return identity.Peer{}, fmt.Errorf("%w: %w", ErrToken, err)
	}
	id, err := identity.Parse(claims.Subject)
	if err != nil {
		return identity.Peer{}, fmt.Errorf("%w: %w", ErrToken, err)
	}
	p := claims.Peer
	peer := identity.Peer{
		ID: id, Workload: p.Workload, Instance: p.Instance, App: p.App, Version: p.Version, Service: p.Service,
		Revision: p.Revision, Cluster: p.Cluster,
	}
	if err := identity.ValidatePeer(peer); err != nil {
		return identity.Peer{}, fmt.Errorf("%w: %w", ErrToken, err)
	}
	if id.TrustDomain != t.options.TrustDomain {
		return identity.Peer{}, fmt.Errorf("%w: %s is not of trust domain %q", ErrToken, id, t.options.TrustDomain)
	}
	return peer, nil
}

func (t *Tokens) claims(token string) (tokenClaims, error) {
	var claims tokenClaims
	if len(token) > maxToken {
		return claims, fmt.Errorf("%d bytes, more than %d", len(token), maxToken)
	}
	// Naming the one algorithm here is what refuses "none" and keys of another kind (RFC 8725, section 3.1).
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return claims, errors.New("it is not a JSON web token signed with ES256") // the library's error may quote the token
	}
	if err := parsed.Claims(t.key, &claims); err != nil {
		return claims, errors.New("it was not signed by this authority")
	}
	if claims.Expiry == nil {
		return claims, errors.New("it has no expiry")
	}
	expected := jwt.Expected{Issuer: t.issuer(), AnyAudience: jwt.Audience{tokenAudience}, Time: t.options.Clock()}
	if err := claims.ValidateWithLeeway(expected, t.options.Leeway); err != nil {
		return claims, err
	}
	return claims, nil
}
