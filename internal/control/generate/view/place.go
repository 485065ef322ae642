package view

import (
	"slices"

	"github.com/weftmesh/weft/internal/control/index"
	"github.com/weftmesh/weft/internal/control/model"
)

// Place is where routes will stand: a sidecar's outbound port, or a server of a gateway.
type Place struct {
	Port    uint16
	Gateway *model.Gateway // nil for sidecars
	Server  *model.Server
}

// only is a place for some of its server's hosts.
func (p Place) only(hosts []model.GatewayHost) Place {
	server := *p.Server
	server.Hosts = hosts
	p.Server = &server
	return p
}

// Takes evaluates the gateways of a match; without any, the match inherits those of its route set.
func (p Place) Takes(gateways []model.GatewayRef, mesh bool) bool {
	if len(gateways) == 0 && !mesh {
		return true
	}
	if p.Gateway == nil {
		return mesh
	}
	return p.named(gateways)
}

// named reports whether one of the references is to this server.
func (p Place) named(gateways []model.GatewayRef) bool {
	return slices.ContainsFunc(gateways, func(r model.GatewayRef) bool { return r.Names(p.Gateway, p.Server) })
}

// Hosts gives the hosts of a set that this server takes: where one of both has a wildcard, the narrower counts.
func (p Place) Hosts(s *model.RouteSet) []string {
	var out []string
	seen := map[string]bool{}
	for _, h := range s.Hosts {
		for _, w := range p.Server.Hosts {
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

// ServerNames gives those of a set's server names that this server takes; all of them for sidecars.
func (p Place) ServerNames(s *model.RouteSet, names []string) []string {
	if p.Gateway == nil {
		return names
	}
	var out []string
	for _, n := range names {
		for _, w := range p.Server.Hosts {
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

// Own is the host of a listener of the Gateway API that has others beside it; empty for any other place.
func (p Place) Own() string {
	if p.Server == nil || len(p.Server.Others) == 0 || len(p.Server.Hosts) != 1 {
		return ""
	}
	return p.Server.Hosts[0].Host
}

// Leaves reports whether a host that the listener's own one covers is another listener's of the Gateway.
func (p Place) Leaves(host string) bool {
	return CoversOther(p.Own(), host) && slices.Contains(p.Server.Others, host)
}

// Covered reports whether another listener of the Gateway has a wildcard that covers the listener's host.
func (p Place) Covered() bool {
	own := p.Own()
	return own != "" && slices.ContainsFunc(p.Server.Others, func(h string) bool { return CoversOther(h, own) })
}

// CoversOther reports whether a host is a wildcard that covers another host.
func CoversOther(wildcard, host string) bool {
	return wildcard != host && index.IsWildcard(wildcard) && (wildcard == "*" || index.Covers(wildcard, host))
}

// TakesService reports whether the server's hosts cover a service.
func (p Place) TakesService(s *model.Service) bool {
	return slices.ContainsFunc(p.Server.Hosts, func(h model.GatewayHost) bool {
		if h.Namespace != "" && h.Namespace != "*" && h.Namespace != s.Namespace {
			return false
		}
		narrow, ok := intersect(s.Host, h.Host)
		return ok && narrow == s.Host
	})
}

// intersect gives the narrower of two hosts that may have wildcards; false when no name is in both.
func intersect(a, b string) (string, bool) {
	switch {
	case a == b:
		return a, true
	case index.IsWildcard(a) && (index.Covers(a, b) || a == "*"):
		return b, true
	case index.IsWildcard(b) && (index.Covers(b, a) || b == "*"):
		return a, true
	}
	return "", false
}
