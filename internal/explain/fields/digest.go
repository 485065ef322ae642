package fields

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"maps"
	"slices"
	"strings"
)

// Digest tells long contents apart by the beginning of their SHA-256; of certificates in PEM, that of what is in them, and it says whose
// the first one is.
func Digest(data []byte) string {
	h := sha256.New()
	var first *x509.Certificate
	rest, found := data, false
	for block, more := pem.Decode(rest); block != nil; block, more = pem.Decode(rest) {
		h.Write(block.Bytes)
		if first == nil && block.Type == "CERTIFICATE" {
			first, _ = x509.ParseCertificate(block.Bytes) // what is none has no name
		}
		rest, found = more, true
	}
	if !found {
		h.Write(data)
	}
	sum := "sha256 " + hex.EncodeToString(h.Sum(nil)[:4])
	if first == nil {
		return sum
	}
	name := first.Subject.CommonName
	if len(first.DNSNames) > 0 {
		name = strings.Join(first.DNSNames[:min(3, len(first.DNSNames))], " ")
	}
	return strings.TrimSpace(name + " " + sum)
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
