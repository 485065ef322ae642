package identity

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Revocations are lists of revoked certificates, of several authorities. The zero value revokes nothing.
type Revocations struct {
	lists []*x509.RevocationList
	peer  string
	clock func() time.Time
}

// ParseRevocations reads lists in PEM; there may be none. peer is "client" or "server", for errors. A nil clock is the system's.
func ParseRevocations(lists []byte, peer string, clock func() time.Time) (Revocations, error) {
	r := Revocations{peer: peer, clock: clock}
	if clock == nil {
		r.clock = time.Now
	}
	for rest := lists; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return r, nil
		}
		l, err := x509.ParseRevocationList(block.Bytes)
		if err != nil {
			return Revocations{}, fmt.Errorf("tls revocation list: %w", err)
		}
		r.lists = append(r.lists, l)
	}
}

// Any reports whether there are lists.
func (r *Revocations) Any() bool { return len(r.lists) > 0 }

// Check wants one of a peer's verified chains to have nothing revoked.
func (r *Revocations) Check(chains [][]*x509.Certificate) error {
	if !r.Any() {
		return nil
	}
	err := errors.New("tls: the " + r.peer + "'s certificate has no verified chain")
	for _, chain := range chains {
		if err = r.check(chain); err == nil {
			return nil
		}
	}
	return err
}

// check looks for each certificate of a chain but the root in the list of who issued it. An issuer without a list, or with one that
// has expired, vouches for nobody (RFC 5280 section 6.3.3).
func (r *Revocations) check(chain []*x509.Certificate) error {
	for i := range len(chain) - 1 {
		cert, issuer := chain[i], chain[i+1]
		at := slices.IndexFunc(r.lists, func(l *x509.RevocationList) bool { return l.CheckSignatureFrom(issuer) == nil })
		if at < 0 {
			return fmt.Errorf("tls: there is no revocation list of %q, which issued the %s's certificate", issuer.Subject, r.peer)
		}
		l := r.lists[at]
		if !l.NextUpdate.IsZero() && r.clock().After(l.NextUpdate) {
			return fmt.Errorf("tls: the revocation list of %q has expired", issuer.Subject)
		}
		if slices.ContainsFunc(l.RevokedCertificateEntries, func(e x509.RevocationListEntry) bool { return e.SerialNumber.Cmp(cert.SerialNumber) == 0 }) {
			return fmt.Errorf("tls: the certificate %s of the %s's chain is revoked", cert.SerialNumber.Text(16), r.peer)
		}
	}
	return nil
}
