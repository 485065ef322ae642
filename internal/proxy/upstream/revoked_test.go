package upstream

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
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

// TestRevokedServers connects by TLS over real sockets to a server whose authority has revoked certificates.
func TestRevokedServers(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sign := func(template, by *x509.Certificate) *x509.Certificate {
		template.NotAfter = time.Now().Add(time.Hour)
		der, err := x509.CreateCertificate(rand.Reader, template, by, &key.PublicKey, key)
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, SubjectKeyId: []byte{1}}
	root = sign(root, root)
	leaf := sign(&x509.Certificate{SerialNumber: big.NewInt(7), DNSNames: []string{"server.example"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, root)
	revokes := func(until time.Duration, serial int64) []byte {
		der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(until),
			RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: big.NewInt(serial), RevocationTime: time.Now()}}}, root, key)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{leaf.Raw}, PrivateKey: key}}})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() { // ends with the listener
		defer close(served)
		for c, err := l.Accept(); err == nil; c, err = l.Accept() {
			c.(*tls.Conn).Handshake()
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-served })
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Raw})
	names := []conf.StringMatch{{Kind: conf.Exact, Value: "server.example"}}
	for name, c := range map[string]struct {
		crl   []byte
		sans  []conf.StringMatch
		fails string
	}{
		"no list":                     {},
		"another is revoked":          {crl: revokes(time.Hour, 8)},
		"revoked":                     {crl: revokes(time.Hour, 7), fails: "7 of the server's chain is revoked"},
		"by names, another":           {crl: revokes(time.Hour, 8), sans: names},
		"by names, revoked":           {crl: revokes(time.Hour, 7), sans: names, fails: "7 of the server's chain is revoked"},
		"a list that has expired":     {crl: revokes(-time.Minute, 8), fails: "has expired"},
		"by names, a list that's old": {crl: revokes(-time.Minute, 8), sans: names, fails: "has expired"},
	} {
		config, err := Config(&conf.UpstreamTLS{SNI: "server.example", CA: ca, CRL: c.crl, SANs: c.sans}, TCP, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		err = tls.Client(conn, config).Handshake()
		conn.Close()
		if c.fails == "" && err != nil || c.fails != "" && (err == nil || !strings.Contains(err.Error(), c.fails)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Config(&conf.UpstreamTLS{SNI: "server.example", CA: ca, CRL: pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: []byte("x")})}, TCP, nil, nil); err == nil {
		t.Error("a list that is none was taken")
	}
}
