package ca

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/weftmesh/weft/internal/ca/keyfile"
	"github.com/weftmesh/weft/internal/identity"
)

const (
	rootFile  = "root-cert.pem"
	certFile  = "ca-cert.pem"
	keyFile   = "ca-key.pem"
	chainFile = "cert-chain.pem"
)

type signer = crypto.Signer

func loadOrCreate(dir string, o Options) (*issuer, error) {
	_, err := os.Stat(filepath.Join(dir, rootFile))
	if err == nil {
		return load(dir, o)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("ca: %w", err)
	}
	if err := create(dir, o); err != nil {
		return nil, err
	}
	return load(dir, o)
}

// create makes a root. The root file is written last, and only then the authority counts as made: a start that was cut short is
// taken up again with the key it left. Each file is created exclusively, so that two processes that start at once agree.
func create(dir string, o Options) error {
	for _, name := range []string{certFile, chainFile} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			if madeHere(dir, name) {
				continue
			}
			return fmt.Errorf("ca: %s has %s but no %s: a plugged-in authority needs %s, %s and %s", dir, name, rootFile, rootFile, certFile, keyFile)
		}
	}
	key, err := loadOrCreateKey(filepath.Join(dir, keyFile))
	if err != nil {
		return err
	}
	root, err := selfSign(key, o)
	if err != nil {
		return err
	}
	if err := keyfile.Create(filepath.Join(dir, certFile), identity.EncodeCertificates(root), 0o644); err != nil {
		return fmt.Errorf("ca: %w", err)
	}
	made, err := os.ReadFile(filepath.Join(dir, certFile))
	if err != nil {
		return fmt.Errorf("ca: %w", err)
	}
	if err := keyfile.Create(filepath.Join(dir, rootFile), made, 0o644); err != nil {
		return fmt.Errorf("ca: %w", err)
	}
	return nil
}

// madeHere reports whether a certificate is a root of our own making, left by a start that was cut short.
func madeHere(dir, name string) bool {
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil || name != certFile {
		return false
	}
	list, err := identity.ParseCertificates(text)
	return err == nil && len(list) == 1 && isSelfSigned(list[0])
}

func isSelfSigned(c *x509.Certificate) bool {
	return bytes.Equal(c.RawSubject, c.RawIssuer) && c.CheckSignatureFrom(c) == nil
}

func selfSign(key signer, o Options) (*x509.Certificate, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	now := o.Clock()
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{Organization: []string{o.TrustDomain}, CommonName: "Weft root " + serial.Text(16)[:8]},
		NotBefore:             now.Add(-clockSkew),
		NotAfter:              now.Add(o.RootTTL),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		// SPIFFE X.509-SVID, section 3: an authority's certificate may carry the trust domain as its identity.
		URIs: []*url.URL{{Scheme: "spiffe", Host: o.TrustDomain}},
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("ca: root: %w", err)
	}
	return x509.ParseCertificate(raw)
}

// load reads a complete authority and checks that its parts fit together now, rather than at the first handshake.
func load(dir string, o Options) (*issuer, error) {
	key, err := loadKey(filepath.Join(dir, keyFile))
	if err != nil {
		return nil, err
	}
	rootsPEM, err := os.ReadFile(filepath.Join(dir, rootFile))
	if err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}
	bundle, err := identity.ParseBundle(o.TrustDomain, rootsPEM)
	if err != nil {
		return nil, fmt.Errorf("ca: %s: %w", filepath.Join(dir, rootFile), err)
	}
	certificates, err := readCertificates(filepath.Join(dir, certFile))
	if err != nil {
		return nil, err
	}
	chain, err := readCertificates(filepath.Join(dir, chainFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	i := &issuer{certificate: certificates[0], key: key, bundle: bundle}
	if err := i.link(append(certificates[1:], chain...), o); err != nil {
		return nil, fmt.Errorf("ca: %s: %w", filepath.Join(dir, certFile), err)
	}
	return i, nil
}

// link checks the signing certificate against its key and the roots, and works out chain and notAfter.
func (i *issuer) link(extra []*x509.Certificate, o Options) error {
	c := i.certificate
	public, ok := i.key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(c.PublicKey) {
		return fmt.Errorf("the key in %s is not this certificate's", keyFile)
	}
	if !c.IsCA || (c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0) {
		return errors.New("this certificate may not sign others (CA:TRUE and keyCertSign are needed)")
	}
	for _, u := range c.URIs {
		if u.Scheme == "spiffe" && u.Host != o.TrustDomain {
			return fmt.Errorf("this authority is of trust domain %q, not %q", u.Host, o.TrustDomain)
		}
	}
	intermediates := x509.NewCertPool()
	for _, e := range extra {
		intermediates.AddCert(e)
	}
	chains, err := c.Verify(x509.VerifyOptions{
		Roots: i.bundle.Pool(o.TrustDomain), Intermediates: intermediates, CurrentTime: i.checkTime(o.Clock()),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return fmt.Errorf("does not lead to a root in %s: %w", rootFile, err)
	}
	path := chains[0]
	i.chain = path[:len(path)-1]
	i.notAfter = path[0].NotAfter
	for _, link := range path {
		if link.NotAfter.Before(i.notAfter) {
			i.notAfter = link.NotAfter
		}
	}
	return nil
}

// checkTime is when the chain is verified at: now, or within the certificate's life when that is over, since an authority that
// has expired still opens (its bundle and journal are needed, and Sign says what is wrong).
func (i *issuer) checkTime(now time.Time) time.Time {
	if now.After(i.certificate.NotAfter) {
		return i.certificate.NotAfter
	}
	return now
}

func readCertificates(path string) ([]*x509.Certificate, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}
	list, err := identity.ParseCertificates(text)
	if err != nil {
		return nil, fmt.Errorf("ca: %s: %w", path, err)
	}
	return list, nil
}

// loadOrCreateKey reads a private key, or makes a P-256 one with mode 0600.
func loadOrCreateKey(path string) (signer, error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("ca: %w", err)
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, fmt.Errorf("ca: %w", err)
		}
		text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
		if err := keyfile.Create(path, text, 0o600); err != nil {
			return nil, fmt.Errorf("ca: %w", err)
		}
	}
	return loadKey(path) // what another process made meanwhile counts
}

// loadKey reads a PEM private key (PKCS #8, SEC 1 or PKCS #1) and refuses a file that others may read.
func loadKey(path string) (signer, error) {
	text, err := keyfile.Read(path)
	if err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}
	key, err := parseKey(text)
	if err != nil {
		return nil, fmt.Errorf("ca: %s: %w", path, err)
	}
	return key, nil
}

func parseKey(text []byte) (signer, error) {
	for {
		var block *pem.Block
		block, text = pem.Decode(text)
		if block == nil {
			return nil, errors.New("no PEM private key in it")
		}
		var key any
		var err error
		switch block.Type {
		case "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case "EC PARAMETERS": // openssl ecparam -genkey writes it first
			continue
		default:
			return nil, fmt.Errorf("PEM block is %q, want a private key", block.Type)
		}
		if err != nil {
			return nil, err
		}
		s, ok := key.(signer)
		if !ok {
			return nil, fmt.Errorf("a %T cannot sign", key)
		}
		return s, checkPublicKey(s.Public())
	}
}

// checkPublicKey refuses keys that are too weak to trust or too large to verify cheaply.
func checkPublicKey(key crypto.PublicKey) error {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P224() {
			return errors.New("key: curve P-224 is too weak; use P-256")
		}
		return nil
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n < 2048 || n > 8192 {
			return fmt.Errorf("key: RSA of %d bits; use ECDSA P-256, or RSA of 2048 to 8192 bits", n)
		}
		return nil
	default:
		if isEd25519(key) {
			return nil
		}
		return fmt.Errorf("key: kind %T is not supported; use ECDSA P-256", key)
	}
}

// checkDir refuses a directory in which others could replace the key.
func checkDir(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("ca: %w", err)
	}
	if !info.IsDir() {
		return fmt.Errorf("ca: %s is not a directory", dir)
	}
	if mode := info.Mode(); mode.Perm()&0o022 != 0 && mode&fs.ModeSticky == 0 {
		return fmt.Errorf("ca: %s: mode is %04o and others may replace the key; run: chmod go-w %s", dir, mode.Perm(), dir)
	}
	return nil
}

// newSerial gives 127 random bits and is never zero (RFC 5280, section 4.1.2.2, wants a positive number of at most 20 octets).
func newSerial() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("ca: serial: %w", err)
	}
	return n.SetBit(n, 127, 1), nil
}
