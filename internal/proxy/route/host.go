package route

import (
	"strings"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/message"
)

// maxFolded bounds the authorities that are made lower case without allocation; longer ones are no host names (RFC 1035 section
// 2.3.4: 255 octets, and a port).
const maxFolded = 264

// Host gives the virtual host for an authority, or nil: exact domains first, then "*.suffix" and "prefix.*", longer ones first,
// then "*". Names compare without regard to case. Source: envoy.config.route.v3.VirtualHost.domains,
// RouteConfiguration.ignore_port_in_host_matching.
func Host(t *conf.RouteTable, authority string) *conf.VirtualHost {
	if t == nil {
		return nil
	}
	if t.IgnorePort {
		authority = withoutPort(authority)
	}
	if t.Index == nil {
		return scanHosts(t, authority)
	}
	var buf [maxFolded]byte
	return lookHost(t.Index, lower(buf[:0], authority))
}

// lower is s in lower case, in buf when it fits.
func lower(buf []byte, s string) []byte {
	buf = append(buf, s...)
	for i, c := range buf {
		if 'A' <= c && c <= 'Z' {
			buf[i] = c | 0x20
		}
	}
	return buf
}

func lookHost(ix *conf.HostIndex, a []byte) *conf.VirtualHost {
	if h := ix.Exact[string(a)]; h != nil {
		return h
	}
	for _, n := range ix.SuffixLengths {
		if n < len(a) {
			if h := ix.Suffix[string(a[len(a)-n:])]; h != nil {
				return h
			}
		}
	}
	for _, n := range ix.PrefixLengths {
		if n < len(a) {
			if h := ix.Prefix[string(a[:n])]; h != nil {
				return h
			}
		}
	}
	return ix.Any
}

// scanHosts is lookHost for tables without an index.
func scanHosts(t *conf.RouteTable, authority string) *conf.VirtualHost {
	var best *conf.VirtualHost
	bestRank := rank{}
	for _, h := range t.Hosts {
		for _, d := range h.Domains {
			if rk, ok := rankOf(d, authority); ok && rk.above(bestRank) {
				best, bestRank = h, rk
			}
		}
	}
	return best
}

// rank orders the domains that match an authority.
type rank struct{ kind, length int }

func (r rank) above(o rank) bool {
	return r.kind > o.kind || r.kind == o.kind && r.length > o.length
}

func rankOf(domain, authority string) (rank, bool) {
	n := len(domain) - 1
	switch {
	case domain == "*":
		return rank{kind: 1}, true
	case n < 0:
		return rank{}, false
	case domain[0] == '*':
		return rank{3, n}, n < len(authority) && message.EqualFold(authority[len(authority)-n:], domain[1:])
	case domain[n] == '*':
		return rank{2, n}, n < len(authority) && message.EqualFold(authority[:n], domain[:n])
	}
	return rank{kind: 4}, message.EqualFold(domain, authority)
}

// withoutPort cuts the port off an authority: "reviews:9080", "[::1]:80".
func withoutPort(authority string) string {
	i := strings.LastIndexByte(authority, ':')
	if i < 0 || strings.IndexByte(authority[i:], ']') >= 0 {
		return authority
	}
	if strings.IndexByte(authority, ':') != i && authority[i-1] != ']' {
		return authority // an IPv6 address without brackets
	}
	return authority[:i]
}
