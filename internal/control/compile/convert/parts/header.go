package parts

import (
	"strings"

	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/wire"
)

// Tokens checks names of methods or fields, which may be "*".
func (p *Part) Tokens(list []string, field string) {
	for i, v := range list {
		if !IsHeaderName(v) {
			p.Err("InvalidHeaderName", At(field, i), "", "%q is not a name", v)
		}
	}
}

// AnyOrigin warns of what opens a service to every page on the internet with its user's rights.
func (p *Part) AnyOrigin(c *model.CORS, field string) {
	if len(c.Origins) == 0 {
		p.Warn("NoEffect", field+".allowOrigins", "", "no origin is allowed: the policy has no effect")
	}
	for i, o := range c.Origins {
		if c.Credentials && (o.Exact == "*" || o.Regex == ".*") {
			p.Warn("AnyOrigin", At(field+".allowOrigins", i), "name the origins", "every page on the internet may use its visitors' credentials here")
		}
	}
}

// HeaderChange checks names and values. ":authority" can be set on a request, and no other pseudo-header.
func (p *Part) HeaderChange(c model.HeaderChange, field string, request bool) model.HeaderChange {
	check := func(name, at string, set bool) {
		switch {
		case !IsHeaderName(name) && !(set && request && name == ":authority"):
			p.Err("InvalidHeaderName", at, "", "%q is not a header name", name)
		case set && !request && strings.EqualFold(name, "host"):
			p.Err("InvalidHeaderName", at, "", "a response has no Host")
		}
	}
	for _, name := range SortedKeys(c.Set) {
		check(name, Key(field+".set", name), true)
		p.ValidHeaderValue(name, c.Set[name], Key(field+".set", name))
	}
	for _, name := range SortedKeys(c.Add) {
		check(name, Key(field+".add", name), false)
		p.ValidHeaderValue(name, c.Add[name], Key(field+".add", name))
	}
	for i, name := range c.Remove {
		check(name, At(field+".remove", i), false)
		if strings.EqualFold(name, "host") && request {
			p.Err("InvalidHeaderName", At(field+".remove", i), "", "the Host header cannot be removed")
		}
	}
	return c
}

// ValidHeaderValue checks what a header is set to.
func (p *Part) ValidHeaderValue(name, v, field string) {
	if !IsHeaderValue(v) {
		p.Err("InvalidHeaderValue", field, "", "a header value cannot contain line ends")
	}
	if strings.EqualFold(name, "host") || name == ":authority" {
		p.ValidAuthority(v, field)
		return
	}
	p.operators(v, field)
}

// ValidAuthority checks what takes the place of a request's host.
func (p *Part) ValidAuthority(v, field string) {
	if strings.ContainsAny(v, "% /?#@") || !IsHeaderValue(v) {
		p.Err("InvalidHeaderValue", field, "", "%q is not a host", v)
	}
}

// operators refuses those of Envoy's substitutions (%REQ(x)%, %PROTOCOL%) that proxies do not make. A percent sign is written twice,
// or it would begin one.
func (p *Part) operators(v, field string) {
	for rest := v; ; {
		_, after, found := strings.Cut(rest, "%")
		if !found {
			return
		}
		operator, after, closed := strings.Cut(after, "%")
		switch {
		case !closed:
			p.Err("InvalidHeaderValue", field, "write %% for a percent sign", "%q has a single percent sign", v)
			return
		case operator != "" && !wire.KnownOperator(operator):
			p.Unsupported(field, "proxies do not fill in %"+operator+"%; write %% for a percent sign")
			return
		}
		rest = after
	}
}

// IsReadable reports whether conditions may read a name: a field's, or that of a part of the request that HTTP/2 treats as one.
func IsReadable(name string) bool {
	switch name {
	case ":method", ":authority", ":path", ":scheme":
		return true
	}
	return IsHeaderName(name)
}

// IsHeaderName reports whether a name is a token (RFC 9110, section 5.6.2).
func IsHeaderName(name string) bool {
	for i := range len(name) {
		c := name[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c)) {
			return false
		}
	}
	return name != ""
}

// IsHeaderValue reports whether a value has no byte that would break a message (RFC 9110, section 5.5).
func IsHeaderValue(value string) bool { return !strings.ContainsAny(value, "\r\n\x00") }
