package route

import (
	"net/netip"
	"strings"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/message"
)

// ConnInfo is what is known of a connection before a chain is chosen.
type ConnInfo struct {
	// Destination is the original destination of a captured connection, else the local address.
	Destination netip.AddrPort
	// Source is the client: the direct peer, or whom that names in a PROXY protocol header. Direct is always the peer; the zero
	// value stands for Source.
	Source, Direct netip.Addr
	// ServerName is the SNI of a ClientHello; empty without.
	ServerName string
	// Transport is RawTransport or TLSTransport; AnyTransport when it was not looked at.
	Transport conf.Transport
	// ALPN are the protocols that the ClientHello offers, in its order. For plaintext it is what the first bytes are:
	// "http/1.0", "http/1.1" or "h2c" (the names that Envoy's http_inspector reports), empty for anything else.
	ALPN []string
}

// ChainStep is a criterion of chain matching, in the order in which they narrow the choice.
type ChainStep uint8

// The criteria. Source: envoy.config.listener.v3.FilterChainMatch.
const (
	ChainFound ChainStep = iota
	ByPort
	ByDestination
	ByServerName
	ByTransport
	ByALPN
	ByDirect
	BySource
)

// String names what found no chain.
func (s ChainStep) String() string {
	return [...]string{"matched", "destination port", "destination address", "server name", "transport protocol",
		"application protocol", "direct source address", "source address"}[s]
}

// Chain gives the most specific filter chain for a connection. At each step only the chains with the best match of that
// criterion stay, and there is no way back, as Envoy does it: a chain for the destination port hides all chains without one, even
// if it then fails on something else. When no chain is left the listener's Default is returned (nil: close the connection) with
// the step that left none.
func Chain(l *conf.Listener, c *ConnInfo) (*conf.Chain, ChainStep) {
	n := narrowing{conn: c}
	for step := ByPort; step <= BySource; step++ {
		best := noMatch
		for _, ch := range l.Chains {
			if n.kept(&ch.Match, step) {
				best = max(best, n.score(&ch.Match, step))
			}
		}
		if best == noMatch {
			return l.Default, step
		}
		n.best[step] = best
	}
	for _, ch := range l.Chains {
		if n.kept(&ch.Match, BySource+1) {
			return ch, ChainFound
		}
	}
	return l.Default, BySource
}

// Excluded gives the first criterion by which a chain does not take a connection, whatever others there are; ChainFound for none.
func Excluded(m *conf.ChainMatch, c *ConnInfo) ChainStep {
	n := narrowing{conn: c}
	for step := ByPort; step <= BySource; step++ {
		if n.score(m, step) == noMatch {
			return step
		}
	}
	return ChainFound
}

// narrowing holds the best score of each step so far.
type narrowing struct {
	conn *ConnInfo
	best [BySource + 1]int
}

// noMatch is the score of a criterion that excludes the connection; 0 is that of a chain that does not ask.
const noMatch = -1

// kept reports whether a chain had the best score in every step before limit.
func (n *narrowing) kept(m *conf.ChainMatch, limit ChainStep) bool {
	for s := ByPort; s < limit; s++ {
		if n.score(m, s) != n.best[s] {
			return false
		}
	}
	return true
}

func (n *narrowing) score(m *conf.ChainMatch, step ChainStep) int {
	c := n.conn
	switch step {
	case ByPort:
		return equalScore(m.DestinationPort == 0, m.DestinationPort == c.Destination.Port())
	case ByDestination:
		return prefixScore(m.Destination, c.Destination.Addr())
	case ByServerName:
		return nameScore(m.ServerNames, c.ServerName)
	case ByTransport:
		return equalScore(m.Transport == conf.AnyTransport, m.Transport == c.Transport)
	case ByALPN:
		return alpnScore(m.ALPN, c.ALPN)
	case ByDirect:
		if c.Direct.IsValid() {
			return prefixScore(m.DirectPrefixes, c.Direct)
		}
		return prefixScore(m.DirectPrefixes, c.Source)
	}
	return prefixScore(m.SourcePrefixes, c.Source)
}

func equalScore(asksNothing, equal bool) int {
	switch {
	case asksNothing:
		return 0
	case equal:
		return 1
	}
	return noMatch
}

// prefixScore prefers longer prefixes.
func prefixScore(prefixes []netip.Prefix, a netip.Addr) int {
	if len(prefixes) == 0 {
		return 0
	}
	best := noMatch
	for _, p := range prefixes {
		if p.Contains(a.Unmap()) {
			best = max(best, p.Bits()+1)
		}
	}
	return best
}

// exactName is above the score of any wildcard.
const exactName = 1 << 16

// nameScore prefers an exact name, then the longest wildcard.
func nameScore(names []string, sni string) int {
	if len(names) == 0 {
		return 0
	}
	best := noMatch
	for _, name := range names {
		suffix, wild := strings.CutPrefix(name, "*")
		switch {
		case !wild && message.EqualFold(name, sni):
			return exactName
		case wild && len(sni) > len(suffix) && message.EqualFold(sni[len(sni)-len(suffix):], suffix):
			best = max(best, len(suffix)+1)
		}
	}
	return best
}

// alpnScore prefers the protocol that the client lists first.
func alpnScore(wanted, offered []string) int {
	if len(wanted) == 0 {
		return 0
	}
	for i, o := range offered {
		for _, w := range wanted {
			if o == w {
				return len(offered) - i
			}
		}
	}
	return noMatch
}
