// Package cors answers browsers that ask whether a page may use resources of another origin, and marks answers that it may read.
// It only decides and writes header fields: whoever calls answers or forwards.
package cors

import (
	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/message"
)

// Kind is what a request is, as far as other origins go.
type Kind uint8

// The kinds.
const (
	// Same is a request that the policy says nothing of.
	Same Kind = iota
	// Actual is a request of an allowed origin: it is forwarded, and its response marked by Mark.
	Actual
	// Preflight asks whether a request of an allowed origin may be made: it is answered by Permit.
	Preflight
	// Unmatched is a preflight of another origin that is answered without permission.
	Unmatched
)

// Decide judges a request by a policy, which may be nil. random is uniform in 0 to 999,999.
func Decide(p *conf.CORS, r *message.Request, random uint32) Kind {
	if p == nil || random >= p.Fraction {
		return Same
	}
	origin, _ := r.Lookup("Origin") // several are none that is allowed
	if origin == "" {
		return Same
	}
	wanted, _ := r.Header.Get("Access-Control-Request-Method")
	preflight := r.Method == "OPTIONS" && wanted != ""
	switch allowed := allows(p, origin); {
	case allowed && preflight:
		return Preflight
	case allowed:
		return Actual
	case preflight && p.AnswerUnmatched:
		return Unmatched
	}
	return Same
}

func allows(p *conf.CORS, origin string) bool {
	for i := range p.Origins {
		if m := &p.Origins[i]; m.Match("*") || m.Match(origin) {
			return true
		}
	}
	return false
}

// Permit writes the answer to a preflight r.
func Permit(p *conf.CORS, r *message.Request, h *message.Header) {
	mark(p, r, h)
	asked := func(name string) string { v, _ := r.Header.Get(name); return v }
	set(h, "Access-Control-Allow-Methods", wildcard(p, p.Methods, asked("Access-Control-Request-Method")))
	set(h, "Access-Control-Allow-Headers", wildcard(p, p.Headers, asked("Access-Control-Request-Headers")))
	set(h, "Access-Control-Max-Age", p.MaxAge)
	if p.PrivateNetwork && asked("Access-Control-Request-Private-Network") == "true" {
		h.Set("Access-Control-Allow-Private-Network", "true")
	}
}

// wildcard gives what is asked for in place of "*", which means itself where credentials are allowed (Fetch, 3.3.4).
func wildcard(p *conf.CORS, allowed, asked string) string {
	if allowed == "*" && p.Credentials {
		return asked
	}
	return allowed
}

// Mark writes into the response of an actual request r what the page may do with it.
func Mark(p *conf.CORS, r *message.Request, h *message.Header) {
	mark(p, r, h)
	set(h, "Access-Control-Expose-Headers", p.Expose)
}

func mark(p *conf.CORS, r *message.Request, h *message.Header) {
	origin, _ := r.Header.Get("Origin")
	h.Set("Access-Control-Allow-Origin", origin)
	if p.Credentials {
		h.Set("Access-Control-Allow-Credentials", "true")
	}
	h.Add("Vary", "Origin") // the answer for one origin is none for another (RFC 9110 section 12.5.5)
}

func set(h *message.Header, name, value string) {
	if value != "" {
		h.Set(name, value)
	}
}
