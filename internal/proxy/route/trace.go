package route

import (
	"fmt"
	"strconv"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/message"
)

// Attempt is one route that was tried, in order; the last one of a Trace is the match, if there is one.
type Attempt struct {
	Route *conf.Route
	Index int
	// Matched is set for the route that was taken. Otherwise Condition names the first condition that failed ("path",
	// "header end-user", "query v", "cookie c", "share"), Want what it asks for and Got what the request has.
	Matched              bool
	Condition, Want, Got string
}

// Trace is how a request found its route.
type Trace struct {
	// Domain of the virtual host that took the authority; empty when there was none.
	Domain   string
	Attempts []Attempt
}

// FindTrace is Find that tells why. It tries the routes one by one whatever the index, with the same conditions.
func FindTrace(t *conf.RouteTable, r *Request) (Result, Trace) {
	h := Host(t, r.Authority)
	if h == nil {
		return Result{}, Trace{}
	}
	tr := Trace{Domain: domainOf(t, h, r.Authority)}
	for i, rt := range h.Routes {
		o := check(&rt.Match, r)
		tr.Attempts = append(tr.Attempts, describe(rt, i, o, r))
		if o.part == matched {
			return Result{Host: h, Route: rt, Index: i}, tr
		}
	}
	return Result{Host: h}, tr
}

func domainOf(t *conf.RouteTable, h *conf.VirtualHost, authority string) string {
	if t.IgnorePort {
		authority = withoutPort(authority)
	}
	var best rank
	domain := ""
	for _, d := range h.Domains {
		if rk, ok := rankOf(d, authority); ok && rk.above(best) {
			best, domain = rk, d
		}
	}
	return domain
}

func describe(rt *conf.Route, i int, o outcome, r *Request) Attempt {
	a := Attempt{Route: rt, Index: i, Matched: o.part == matched}
	m := &rt.Match
	switch o.part {
	case pathPart:
		a.Condition, a.Want, a.Got = "path", m.Path.String(), strconv.Quote(pathOf(r.Path))
		if m.Template != "" {
			a.Want = "template " + strconv.Quote(m.Template)
		}
		if m.PathSeparatedPrefix {
			a.Want += " up to a slash"
		}
	case headerPart:
		h := &m.Headers[o.index]
		a.Condition, a.Want, a.Got = headerName(h.Name), wantHeader(h), absent
		if v, ok := r.Lookup(h.Name); ok {
			a.Got = strconv.Quote(v)
		}
	case queryPart:
		q := &m.Query[o.index]
		a.Condition, a.Want, a.Got = "query "+q.Name, q.Value.String(), absent
		if q.Absent {
			a.Want = absent
		}
		if v, ok := message.RawParam(queryOf(r.Path), q.Name); ok {
			a.Got = strconv.Quote(v)
		}
	case cookiePart:
		c := &m.Cookies[o.index]
		a.Condition, a.Want, a.Got = "cookie "+c.Name, c.Value.String(), absent
		if c.Invert {
			a.Want = "not " + a.Want
		}
		if v, ok := lookCookie(&r.Header, c.Name); ok {
			a.Got = strconv.Quote(v)
		}
	case grpcPart:
		a.Condition, a.Want, a.Got = "protocol", "a call of gRPC", "none"
	case presentedPart:
		a.Condition, a.Want, a.Got = "certificate", words[*m.Presented]+" presented", words[r.Presented]
	case validatedPart:
		a.Condition, a.Want, a.Got = "certificate", words[*m.Validated]+" validated", words[r.Validated]
	case fractionPart:
		a.Condition = "share"
		if m.Never {
			a.Want, a.Got = "0% of requests", "this one"
			break
		}
		a.Want = strconv.FormatFloat(float64(m.Fraction)/1e4, 'f', -1, 64) + "% of requests"
		a.Got = fmt.Sprintf("draw of %s%%", strconv.FormatFloat(float64(r.Random)/1e4, 'f', -1, 64))
	}
	return a
}

const absent = "absent"

var words = map[bool]string{true: "one", false: "none"}

// headerName is how people call the field; the pseudo-headers have names of their own.
func headerName(name string) string {
	if name != "" && name[0] == ':' {
		return name[1:]
	}
	return "header " + name
}

func wantHeader(h *conf.HeaderMatch) string {
	if h.Range != nil {
		s := fmt.Sprintf("a number from %d to before %d", h.Range.Start, h.Range.End)
		if h.Invert {
			return "not " + s
		}
		return s
	}
	if h.Value.Kind == conf.Any {
		if h.Present != h.Invert {
			return "present"
		}
		return absent
	}
	if h.Invert {
		return "not " + h.Value.String()
	}
	return h.Value.String()
}
