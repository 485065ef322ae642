package listen

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conf"
)

// authority signs certificates and revocation lists.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, name string) *authority {
	a := &authority{t: t}
	var err error
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour), IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, SubjectKeyId: []byte(name)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *authority) issue(serial int64, name string) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (a *authority) revokes(until time.Time, serials ...int64) []byte {
	l := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: until}
	for _, s := range serials {
		l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(s), RevocationTime: time.Now()})
	}
	der, err := x509.CreateRevocationList(rand.Reader, l, a.cert, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
}

func pemPair(t *testing.T, c tls.Certificate) conf.KeyPair {
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return conf.KeyPair{Certificate: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]}),
		Key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})}
}

func keyHash(t *testing.T, c tls.Certificate) [32]byte {
	cert, err := x509.ParseCertificate(c.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(cert.RawSubjectPublicKeyInfo)
}

func TestClientCertificates(t *testing.T) {
	ca, other := newAuthority(t, "ca"), newAuthority(t, "other")
	good, revoked, stranger := ca.issue(7, "good.example"), ca.issue(8, "revoked.example"), other.issue(9, "stranger.example")
	later := time.Now().Add(time.Hour)
	for name, c := range map[string]struct {
		crl    []byte
		sans   []conf.StringMatch
		must   bool
		any    bool
		certs  [][32]byte
		keys   [][32]byte
		client *tls.Certificate
		fails  string
	}{
		"optional, none shown":             {crl: ca.revokes(later)},
		"required, none shown":             {must: true, fails: "certificate"},
		"shown":                            {must: true, client: &good},
		"not on the list":                  {must: true, crl: ca.revokes(later, 8), client: &good},
		"revoked":                          {crl: ca.revokes(later, 8), client: &revoked, fails: "8 of the client's chain is revoked"},
		"expired list":                     {crl: ca.revokes(time.Now().Add(-time.Minute)), client: &good, fails: "has expired"},
		"list of another authority":        {crl: other.revokes(later), client: &good, fails: "no revocation list"},
		"name that is let in":              {sans: []conf.StringMatch{{Kind: conf.Suffix, Value: ".example"}}, client: &good},
		"name that is not":                 {sans: []conf.StringMatch{{Kind: conf.Exact, Value: "other"}}, client: &good, fails: "none of the names"},
		"certificate that is let in":       {certs: [][32]byte{sha256.Sum256(good.Certificate[0])}, client: &good},
		"certificate that is not":          {certs: [][32]byte{sha256.Sum256(revoked.Certificate[0])}, client: &good, fails: "none of those"},
		"key that is let in":               {certs: [][32]byte{{1}}, keys: [][32]byte{keyHash(t, good)}, client: &good},
		"key that is not":                  {keys: [][32]byte{keyHash(t, revoked)}, client: &good, fails: "none of those"},
		"pinned, and of another authority": {keys: [][32]byte{keyHash(t, stranger)}, client: &stranger, fails: "unknown authority"},
		"pinned, and of another name":      {keys: [][32]byte{keyHash(t, good)}, sans: []conf.StringMatch{{Kind: conf.Exact, Value: "other"}}, client: &good, fails: "none of the names"},
		"any is taken":                     {any: true, client: &stranger},
		"any is taken, none shown":         {any: true},
		"name is not asked without cert":   {sans: []conf.StringMatch{{Kind: conf.Exact, Value: "other"}}},
	} {
		t.Run(name, func(t *testing.T) {
			d := &conf.DownstreamTLS{Certificates: []conf.KeyPair{pemPair(t, ca.issue(2, "server.example"))}, RequireClient: c.must, AnyClient: c.any, CRL: c.crl, SANs: c.sans,
				CertificateHashes: c.certs, KeyHashes: c.keys}
			if !c.any {
				d.ClientCA = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw})
			}
			config, err := Config(d, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			roots := x509.NewCertPool()
			roots.AddCert(ca.cert)
			ours := &tls.Config{RootCAs: roots, ServerName: "server.example"}
			if c.client != nil {
				// Shown even when its authority is none of those that the server names.
				ours.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.client, nil }
			}
			a, b := net.Pipe()
			defer a.Close()
			defer b.Close()
			done := make(chan struct{})
			go func() { // ends with the pipe
				defer close(done)
				client := tls.Client(b, ours)
				client.Handshake()
				client.Read(make([]byte, 1))
			}()
			err = tls.Server(a, config).Handshake()
			if (err == nil) != (c.fails == "") || err != nil && !strings.Contains(err.Error(), c.fails) {
				t.Errorf("%v, want %q", err, c.fails)
			}
			a.Close()
			b.Close()
			<-done
		})
	}
}
