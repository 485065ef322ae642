package generate

import (
	"strings"

	"github.com/weftmesh/weft/internal/control/model"
)

// place is where routes will stand: a sidecar's outbound port, or a server of a gateway.
type place struct {
	port    uint16
	gateway *model.Gateway // nil for sidecars
	server  *model.Server
}

// only is a place for some of its server's hosts.
func (p place) only(hosts []model.GatewayHost) place {
	server := *p.server
	server.Hosts = hosts
	p.server = &server
	return p
}

// takes evaluates the gateways of a match; without any, the match inherits those of its route set.
func (p place) takes(gateways []model.GatewayRef, mesh bool) bool {
	if len(gateways) == 0 && !mesh {
		return true
	}
	if p.gateway == nil {
		return mesh
	}
	return p.named(gateways)
}

// named reports whether one of the references is to this server.
func (p place) named(gateways []model.GatewayRef) bool {
	for _, r := range gateways {
		if r.Name != p.gateway.Ref.Name || r.Namespace != p.gateway.Ref.Namespace || !sameGatewayKind(r.Kind, p.gateway.Ref.Kind) {
			continue
		}
		if (r.Section == "" || r.Section == p.server.Name) && (r.Port == 0 || r.Port == p.server.Port) {
			return true
		}
	}
	return false
}

// sameGatewayKind compares the kind in a reference with an object's: Istio's own Gateway is "Gateway" as an object.
func sameGatewayKind(ref, kind string) bool {
	return strings.TrimSuffix(ref, ".istio") == strings.TrimSuffix(kind, ".istio")
}

// hosts gives the hosts of a set that this server takes: where one of both has a wildcard, the narrower counts.
func (p place) hosts(s *model.RouteSet) []string {
	var out []string
	seen := map[string]bool{}
	for _, h := range s.Hosts {
		for _, w := range p.server.Hosts {
			if w.Namespace != "" && w.Namespace != "*" && w.Namespace != s.Namespace {
				continue
			}
			if i, ok := intersect(h, w.Host); ok && !seen[i] {
				seen[i] = true
				out = append(out, i)
			}
		}
	}
	return out
}

func (p place) serverNames(s *model.RouteSet, names []string) []string {
	if p.gateway == nil {
		return names
	}
	var out []string
	for _, n := range names {
		for _, w := range p.server.Hosts {
			if w.Namespace != "" && w.Namespace != "*" && w.Namespace != s.Namespace {
				continue
			}
			if i, ok := intersect(n, w.Host); ok {
				out = append(out, i)
				break
			}
		}
	}
	return out
}

// intersect gives the narrower of two hosts that may have wildcards; false when no name is in both.
func intersect(a, b string) (string, bool) {
	switch {
	case a == b:
		return a, true
	case isWildcard(a) && (wildcardCovers(a, b) || a == "*"):
		return b, true
	case isWildcard(b) && (wildcardCovers(b, a) || b == "*"):
		return a, true
	}
	return "", false
}
