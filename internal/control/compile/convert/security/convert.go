// Package security converts policies of who may talk to whom, how, and how often: PeerAuthentication, AuthorizationPolicy, RateLimit.
package security

import (
	security "istio.io/client-go/pkg/apis/security/v1"

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/source/weftapi"
)

type converter struct{ *parts.Part }

// Convert fills a part whose object is of this family; others are left alone.
func Convert(part *parts.Part) {
	p := converter{part}
	switch k := p.Kube.(type) {
	case *security.PeerAuthentication:
		p.peerAuthentication(k)
	case *security.AuthorizationPolicy:
		p.authorizationPolicy(k)
	case *weftapi.RateLimit:
		p.rateLimit(k)
	}
}
