package conf

import (
	"cmp"
	"slices"
	"strings"
)

// HostIndex finds a table's virtual host by authority without looking at each. Keys are lower case.
type HostIndex struct {
	Exact map[string]*VirtualHost
	// Suffix is keyed by what follows the star ("*.example.com": ".example.com"), Prefix by what precedes it. The lengths that
	// occur are listed from long to short, the order in which they are tried.
	Suffix, Prefix               map[string]*VirtualHost
	SuffixLengths, PrefixLengths []int
	Any                          *VirtualHost // domain "*"
}

// Seal builds the indexes. Package decode calls it once, before the table is published; a table that was not sealed is searched
// from front to back with the same result. Where several hosts have one domain the first wins.
func (t *RouteTable) Seal() {
	ix := &HostIndex{Exact: map[string]*VirtualHost{}, Suffix: map[string]*VirtualHost{}, Prefix: map[string]*VirtualHost{}}
	for _, h := range t.Hosts {
		for _, d := range h.Domains {
			ix.add(strings.ToLower(d), h)
		}
		h.Index = newRouteIndex(h.Routes)
	}
	ix.SuffixLengths, ix.PrefixLengths = lengths(ix.Suffix), lengths(ix.Prefix)
	slices.Reverse(ix.SuffixLengths)
	slices.Reverse(ix.PrefixLengths)
	t.Index = ix
}

func (ix *HostIndex) add(domain string, h *VirtualHost) {
	put := func(m map[string]*VirtualHost, key string) {
		if _, taken := m[key]; !taken {
			m[key] = h
		}
	}
	switch {
	case domain == "*":
		ix.Any = cmp.Or(ix.Any, h)
	case strings.HasPrefix(domain, "*"):
		put(ix.Suffix, domain[1:])
	case strings.HasSuffix(domain, "*"):
		put(ix.Prefix, domain[:len(domain)-1])
	default:
		put(ix.Exact, domain)
	}
}

// lengths gives the distinct lengths of m's keys, ascending.
func lengths[V any](m map[string]V) []int {
	var ls []int
	for k := range m {
		ls = append(ls, len(k))
	}
	slices.Sort(ls)
	return slices.Compact(ls)
}
