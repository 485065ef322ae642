// Package ca is the mesh's certificate authority: it keeps the root (or an intermediate plugged in from outside), signs
// short-lived SPIFFE certificates against a proof of identity, and keeps a journal of what it issued. Everything lives in one
// directory, so an authority opened on it again verifies what it issued before.
//
// The directory has the names of Istio's cacerts secret:
//
//	root-cert.pem   the roots that all of the mesh trusts (several during a change of root)
//	ca-cert.pem     the certificate that signs; the root itself unless an intermediate was plugged in
//	ca-key.pem      its key, mode 0600
//	cert-chain.pem  the chain from ca-cert.pem up to the root; only with an intermediate
//	token-key.pem   the key of the join tokens, mode 0600
//	journal.jsonl   what was issued
package ca

import (
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weftmesh/weft/internal/identity"
)

// Options of Open. Zero fields take their defaults.
type Options struct {
	TrustDomain string           // required
	Clock       func() time.Time // time.Now
	Log         *slog.Logger     // slog.Default
	LeafTTL     time.Duration    // lifetime when the request names none; 24 h
	MaxLeafTTL  time.Duration    // longer requests get this much; LeafTTL, and 24 h at least
	RootTTL     time.Duration    // lifetime of a root that Open makes; 10 years of 365 days
	// JournalSize is the size in bytes at which the journal is rotated, 4 MiB; JournalFiles how many old ones are kept, 4.
	JournalSize  int64
	JournalFiles int
}

const (
	day = 24 * time.Hour
	// clockSkew is how far leaf certificates are backdated, for peers whose clocks are behind.
	clockSkew = time.Minute
	// rootWarning is how long before its end a root is warned of.
	rootWarning = 30 * day
)

// ErrIssuerExpired is returned by Sign when the authority's own certificate, or its root, is over.
var ErrIssuerExpired = errors.New("ca: the signing certificate has expired")

// Authority signs certificates. It is safe for concurrent use.
type Authority struct {
	dir     string // these are set once
	options Options
	journal *journal

	issuer atomic.Pointer[issuer]

	mu     sync.Mutex
	warned time.Time // when the end of the root was last warned of
}

// Open loads the authority of a directory, or makes one when the directory has none. It refuses a key that others may read, a
// key that is not the certificate's, and an authority of another trust domain.
func Open(dir string, o Options) (*Authority, error) {
	if err := o.setDefaults(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}
	if err := checkDir(dir); err != nil {
		return nil, err
	}
	i, err := loadOrCreate(dir, o)
	if err != nil {
		return nil, err
	}
	j, err := openJournal(dir, o.JournalSize, o.JournalFiles)
	if err != nil {
		return nil, err
	}
	a := &Authority{dir: dir, options: o, journal: j}
	a.issuer.Store(i)
	a.warnOfExpiry()
	return a, nil
}

func (o *Options) setDefaults() error {
	if err := (identity.ID{TrustDomain: o.TrustDomain, Namespace: "x", ServiceAccount: "x"}).Validate(); err != nil {
		return fmt.Errorf("ca: %w", err)
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.LeafTTL <= 0 {
		o.LeafTTL = day
	}
	if o.MaxLeafTTL <= 0 {
		o.MaxLeafTTL = max(o.LeafTTL, day)
	}
	if o.RootTTL <= 0 {
		o.RootTTL = 3650 * day
	}
	if o.JournalSize <= 0 {
		o.JournalSize = 4 << 20
	}
	if o.JournalFiles <= 0 {
		o.JournalFiles = 4
	}
	return nil
}

// Close closes the journal. Sign fails afterwards.
func (a *Authority) Close() error { return a.journal.close() }

// TrustDomain is the one whose identities this authority signs.
func (a *Authority) TrustDomain() string { return a.options.TrustDomain }

// Bundle is what peers of this mesh trust.
func (a *Authority) Bundle() *identity.Bundle { return a.issuer.Load().bundle }

// RootsPEM is the bundle's text, as it goes into a proxy's bootstrap file.
func (a *Authority) RootsPEM() []byte { return a.Bundle().PEM(a.options.TrustDomain) }

// RootExpiry is when the first certificate between a leaf and its root ends, after which nothing can be signed. It feeds a gauge.
func (a *Authority) RootExpiry() time.Time { return a.issuer.Load().notAfter }

// Reload reads the directory again, for a plugged-in certificate that was replaced or a root that was added. What is there must
// be whole; if it is not, the authority goes on as before. Certificates signed earlier stay good as long as their root is in
// root-cert.pem.
func (a *Authority) Reload() error {
	i, err := load(a.dir, a.options)
	if err != nil {
		return err
	}
	a.issuer.Store(i)
	a.warnOfExpiry()
	return nil
}

// warnOfExpiry says at most once a day that the root is about to end.
func (a *Authority) warnOfExpiry() {
	now, end := a.options.Clock(), a.RootExpiry()
	if end.Sub(now) > rootWarning {
		return
	}
	a.mu.Lock()
	due := a.warned.IsZero() || now.Sub(a.warned) >= day
	if due {
		a.warned = now
	}
	a.mu.Unlock()
	if due {
		a.options.Log.Warn("the certificate authority expires soon: replace its root and signing certificate",
			"dir", a.dir, "expires", end.UTC().Format(time.RFC3339), "days_left", int(end.Sub(now)/day))
	}
}

// issuer is one generation of what the authority signs with. It is immutable.
type issuer struct {
	certificate *x509.Certificate
	key         signer
	chain       []*x509.Certificate // what follows a leaf in its chain, without the root
	bundle      *identity.Bundle
	notAfter    time.Time
}
