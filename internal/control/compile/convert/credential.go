package convert

import (
	"crypto/tls"
	"crypto/x509"
)

// Credential is a reference to a Secret, which is looked up when all objects are there.
type Credential struct {
	Namespace string // empty for where the part's kind looks
	Name      string
	Field     string
	Pair, CA  bool         // whether a certificate with its key, and an authority, are needed
	Take      func(Secret) // puts the material in its place
}

// Secret is what a Secret holds for TLS, as PEM.
type Secret struct{ Certificate, Key, CA []byte }

// Check says what is wrong with the material; "" when nothing is.
func (s Secret) Check(cred Credential) string {
	if cred.Pair {
		if s.Certificate == nil || s.Key == nil {
			return "has no tls.crt and tls.key"
		}
		if _, err := tls.X509KeyPair(s.Certificate, s.Key); err != nil {
			return "has no usable pair of certificate and key (" + err.Error() + ")"
		}
	}
	if cred.CA && (s.CA != nil || cred.Pair) {
		if s.CA == nil {
			return "has no ca.crt"
		}
		if !x509.NewCertPool().AppendCertsFromPEM(s.CA) {
			return "has no certificate in ca.crt"
		}
	}
	return ""
}
