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
	return ID{TrustDomain: p[0], Namespace: p[2], ServiceAccount: p[4]}, nil
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
