package admin

import (
	"crypto/x509"
	"time"
)

// certificate is envoy.admin.v3.CertificateDetails: public facts.
type certificate struct {
	Path    string    `json:"path"`
	Serial  string    `json:"serial_number"`
	Names   []altName `json:"subject_alt_names"`
	Days    int       `json:"days_until_expiration"`
	From    time.Time `json:"valid_from"`
	Expires time.Time `json:"expiration_time"`
}

type altName struct {
	URI string `json:"uri,omitempty"`
	DNS string `json:"dns,omitempty"`
}

func details(list []*x509.Certificate, path string) []certificate {
	out := []certificate{}
	for _, c := range list {
		d := certificate{Path: path, Serial: c.SerialNumber.Text(16), Names: []altName{}, Days: int(time.Until(c.NotAfter).Hours() / 24), From: c.NotBefore, Expires: c.NotAfter}
		for _, u := range c.URIs {
			d.Names = append(d.Names, altName{URI: u.String()})
		}
		for _, n := range c.DNSNames {
			d.Names = append(d.Names, altName{DNS: n})
		}
		out = append(out, d)
	}
	return out
}

// certs describes the workload's own certificate and the roots of its trust domain.
func (f *Facts) certs() any {
	certificates := []any{}
	if m := f.Identity(); m != nil && m.Bundle != nil {
		entry := map[string]any{}
		if m.Certificate != nil {
			var chain []*x509.Certificate
			for _, der := range m.Certificate.Certificate {
				if c, err := x509.ParseCertificate(der); err == nil { // it was parsed before
					chain = append(chain, c)
				}
			}
			entry["cert_chain"] = details(chain, "default")
		}
		var roots []*x509.Certificate
		for _, domain := range m.Bundle.TrustDomains() {
			roots = append(roots, m.Bundle.Roots(domain)...)
		}
		entry["ca_cert"] = details(roots, "ROOTCA")
		certificates = append(certificates, entry)
	}
	return map[string]any{"certificates": certificates}
}
