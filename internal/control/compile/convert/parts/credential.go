package parts

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
)

// Credential is a reference to a Secret, which is looked up when all objects are there.
type Credential struct {
	Namespace string // empty for where the part's kind looks
	Name      string
	Field     string
	List      string       // the field of a list of which it is one, where the others do without it; empty for none
	Pair, CA  bool         // whether a certificate with its key, and an authority, are needed
	Take      func(Secret) // puts the material in its place
	Lack      func(string) // hears why there is none; nil where nobody needs to
}

// Secret is what a Secret holds for TLS, as PEM.
type Secret struct{ Certificate, Key, CA, CRL []byte }

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
	if cred.CA && len(s.CRL) > 0 && s.CA == nil {
		return "has revocation lists in ca.crl, and no ca.crt beside them"
	}
	if problem := revocations(s.CRL); cred.CA && problem != "" {
		return "has no usable revocation list in ca.crl (" + problem + ")"
	}
	return ""
}

// revocations says what is wrong with revocation lists; "" when nothing is, or there are none.
func revocations(lists []byte) string {
	if len(lists) == 0 {
		return ""
	}
	n := 0
	for rest := lists; ; n++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if _, err := x509.ParseRevocationList(block.Bytes); err != nil {
			return err.Error()
		}
	}
	if n == 0 {
		return "it is not in PEM"
	}
	return ""
}
