package wire

import (
	"crypto/tls"
	"slices"
	"strings"
)

// CipherSuite gives the number of a suite of TLS 1.2 by the name that OpenSSL, Envoy and Istio use; 0 when crypto/tls does not hold it
// for safe.
func CipherSuite(name string) uint16 {
	for _, s := range tls.CipherSuites() {
		if cipherName(s) == name {
			return s.ID
		}
	}
	return 0
}

// CipherSuites lists the names that CipherSuite knows, sorted.
func CipherSuites() []string {
	var names []string
	for _, s := range tls.CipherSuites() {
		if name := cipherName(s); name != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// cipherName turns TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 into ECDHE-RSA-AES128-GCM-SHA256; "" for suites of TLS 1.3, which cannot be
// chosen.
func cipherName(s *tls.CipherSuite) string {
	exchange, cipher, ok := strings.Cut(strings.TrimPrefix(s.Name, "TLS_"), "_WITH_")
	if !ok {
		return ""
	}
	cipher = strings.NewReplacer("AES_", "AES", "_CBC", "").Replace(cipher)
	if strings.HasPrefix(cipher, "CHACHA20") {
		cipher = strings.TrimSuffix(cipher, "_SHA256")
	}
	return strings.ReplaceAll(exchange+"_"+cipher, "_", "-")
}
