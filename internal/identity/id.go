// Package identity holds SPIFFE names and what a certificate of the mesh says about its holder.
package identity

import (
	"fmt"
	"strings"
)

// ID is a workload identity in Istio's SPIFFE form: spiffe://<trust domain>/ns/<namespace>/sa/<service account>.
type ID struct{ TrustDomain, Namespace, ServiceAccount string }

// String gives the SPIFFE URI.
func (id ID) String() string { return "spiffe://" + id.Principal() }

// Principal gives the URI without its scheme, the form that AuthorizationPolicy's principals take.
func (id ID) Principal() string {
	return id.TrustDomain + "/ns/" + id.Namespace + "/sa/" + id.ServiceAccount
}

// IsZero reports whether there is no identity (a plaintext peer).
func (id ID) IsZero() bool { return id == ID{} }

// ControlID is the control plane's own identity, named as Istio names it. The authority gives it to nobody else.
func ControlID(trustDomain string) ID {
	return ID{TrustDomain: trustDomain, Namespace: "istio-system", ServiceAccount: "istiod"}
}

// Parse reads a SPIFFE URI of the mesh's form.
func Parse(uri string) (ID, error) {
	rest, ok := strings.CutPrefix(uri, "spiffe://")
	if !ok {
		return ID{}, fmt.Errorf("identity %q: does not start with spiffe://", uri)
	}
	p := strings.Split(rest, "/")
	if len(p) != 5 || p[1] != "ns" || p[3] != "sa" || p[0] == "" || p[2] == "" || p[4] == "" {
		return ID{}, fmt.Errorf("identity %q: want spiffe://<trust domain>/ns/<namespace>/sa/<service account>", uri)
	}
	id := ID{TrustDomain: p[0], Namespace: p[2], ServiceAccount: p[4]}
	if err := id.Validate(); err != nil {
		return ID{}, err
	}
	return id, nil
}

// maxIDLength bounds a SPIFFE URI (SPIFFE ID, section 2.3).
const maxIDLength = 2048

// Validate checks the characters that the SPIFFE ID specification allows (sections 2.1 and 2.2), so that an identity never
// needs escaping in a URI, a policy or a log. Parse has done it already; it is for identities built from parts.
func (id ID) Validate() error {
	if len(id.Principal()) > maxIDLength-len("spiffe://") {
		return fmt.Errorf("identity: longer than %d bytes", maxIDLength)
	}
	if !validTrustDomain(id.TrustDomain) {
		return fmt.Errorf("identity: trust domain %q: want lower-case letters, digits, '.', '-' and '_'", id.TrustDomain)
	}
	if !validSegment(id.Namespace) {
		return fmt.Errorf("identity: namespace %q: want letters, digits, '.', '-' and '_'", id.Namespace)
	}
	if !validSegment(id.ServiceAccount) {
		return fmt.Errorf("identity: service account %q: want letters, digits, '.', '-' and '_'", id.ServiceAccount)
	}
	return nil
}

func validTrustDomain(s string) bool {
	return s != "" && len(s) <= 255 && strings.ToLower(s) == s && onlyNameBytes(s)
}

func validSegment(s string) bool {
	return s != "" && s != "." && s != ".." && onlyNameBytes(s)
}

func onlyNameBytes(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '.' && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

// Peer is who is at the other end of a connection, or who we are ourselves: an identity and the workload facts that the
// authority vouched for when it signed the certificate. Metrics, logs and policies take the peer from here, never from what
// the peer sends.
type Peer struct {
	ID
	Workload string `json:"workload,omitempty"` // owner (Deployment name)
	Instance string `json:"instance,omitempty"` // pod or process instance
	App      string `json:"app,omitempty"`      // label app
	Version  string `json:"version,omitempty"`  // label version
	Service  string `json:"service,omitempty"`  // canonical service
	Revision string `json:"revision,omitempty"` // canonical revision
	Cluster  string `json:"cluster,omitempty"`
}
