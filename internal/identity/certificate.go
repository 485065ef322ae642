package identity

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"fmt"
	"unicode/utf8"
)

// PeerExtension is the object identifier of the certificate extension that carries the workload facts of a Peer. It lies under
// the arc for identifiers without a registry (X.667, 2.25) and is read only from certificates that lead to the mesh's own roots,
// so it cannot be mistaken for somebody else's.
var PeerExtension = asn1.ObjectIdentifier{2, 25, 1467203845, 1}

const (
	maxPeerExtension = 2048 // bytes of the whole extension value
	maxPeerFact      = 253  // bytes of one fact: the longest name that Kubernetes knows
)

// facts is what the extension holds: a Peer without its identity, which is the certificate's URI and nothing else.
type facts struct {
	Workload string `json:"workload,omitempty"`
	Instance string `json:"instance,omitempty"`
	App      string `json:"app,omitempty"`
	Version  string `json:"version,omitempty"`
	Service  string `json:"service,omitempty"`
	Revision string `json:"revision,omitempty"`
	Cluster  string `json:"cluster,omitempty"`
}

func (f facts) peer(id ID) Peer {
	return Peer{ID: id, Workload: f.Workload, Instance: f.Instance, App: f.App, Version: f.Version, Service: f.Service,
		Revision: f.Revision, Cluster: f.Cluster}
}

func (f facts) validate() error {
	for _, v := range []struct{ name, value string }{
		{"workload", f.Workload}, {"instance", f.Instance}, {"app", f.App}, {"version", f.Version},
		{"service", f.Service}, {"revision", f.Revision}, {"cluster", f.Cluster},
	} {
		if len(v.value) > maxPeerFact {
			return fmt.Errorf("peer facts: %s is longer than %d bytes", v.name, maxPeerFact)
		}
		if !cleanFact(v.value) {
			return fmt.Errorf("peer facts: %s %q: holds a control character or is not UTF-8", v.name, v.value)
		}
	}
	return nil
}

// cleanFact refuses what could break a line of a log or of the metrics format.
func cleanFact(s string) bool {
	for _, r := range s {
		if r < ' ' || r == 0x7f || r == utf8.RuneError {
			return false
		}
	}
	return true
}

// ValidatePeer checks that p could be put into a certificate: an identity of SPIFFE's form and facts within their bounds.
func ValidatePeer(p Peer) error {
	if err := p.ID.Validate(); err != nil {
		return err
	}
	_, err := EncodePeerExtension(p)
	return err
}

// EncodePeerExtension gives the non-critical extension that carries p's facts: JSON in an ASN.1 UTF8String, at most 2 KiB. Only
// the authority writes it. The identity is not in it.
func EncodePeerExtension(p Peer) (pkix.Extension, error) {
	f := facts{Workload: p.Workload, Instance: p.Instance, App: p.App, Version: p.Version, Service: p.Service,
		Revision: p.Revision, Cluster: p.Cluster}
	if err := f.validate(); err != nil {
		return pkix.Extension{}, err
	}
	text, err := json.Marshal(f)
	if err != nil {
		return pkix.Extension{}, fmt.Errorf("peer facts: %w", err)
	}
	value, err := asn1.MarshalWithParams(string(text), "utf8")
	if err != nil {
		return pkix.Extension{}, fmt.Errorf("peer facts: %w", err)
	}
	if len(value) > maxPeerExtension {
		return pkix.Extension{}, fmt.Errorf("peer facts: %d bytes, more than the %d that a certificate carries", len(value), maxPeerExtension)
	}
	return pkix.Extension{Id: PeerExtension, Value: value}, nil
}

// decodePeerExtension reads the extension's value. Facts it does not know are skipped: a newer authority may write more.
func decodePeerExtension(value []byte) (facts, error) {
	if len(value) > maxPeerExtension {
		return facts{}, fmt.Errorf("peer facts: %d bytes, more than %d", len(value), maxPeerExtension)
	}
	var text string
	rest, err := asn1.UnmarshalWithParams(value, &text, "utf8")
	if err != nil {
		return facts{}, fmt.Errorf("peer facts: %w", err)
	}
	if len(rest) > 0 {
		return facts{}, fmt.Errorf("peer facts: %d bytes after the value", len(rest))
	}
	var f facts
	if err := json.Unmarshal([]byte(text), &f); err != nil {
		return facts{}, fmt.Errorf("peer facts: %w", err)
	}
	return f, f.validate()
}

// PeerFromCertificate says who a certificate is for: its one URI name, which must be of the mesh's form, and the facts of the
// peer extension when it has one. It verifies nothing; call it with a certificate that a handshake has verified
// (ConnectionState.PeerCertificates[0] of a connection made with Source's configurations). It parses, so call it once per
// connection and keep the answer.
func PeerFromCertificate(c *x509.Certificate) (Peer, error) {
	if len(c.URIs) != 1 {
		return Peer{}, fmt.Errorf("certificate: %d URI names, want exactly one SPIFFE identity", len(c.URIs))
	}
	id, err := Parse(c.URIs[0].String())
	if err != nil {
		return Peer{}, fmt.Errorf("certificate: %w", err)
	}
	for _, e := range c.Extensions {
		if !e.Id.Equal(PeerExtension) {
			continue
		}
		f, err := decodePeerExtension(e.Value)
		if err != nil {
			return Peer{}, fmt.Errorf("certificate of %s: %w", id, err)
		}
		return f.peer(id), nil
	}
	return Peer{ID: id}, nil
}
