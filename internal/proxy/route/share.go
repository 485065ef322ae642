package route

import "github.com/weftmesh/weft/internal/proxy/conf"

// Share is a route that takes a part of the requests that it matches, 0 to 1, and leaves the others to the next.
type Share struct {
	Route *conf.Route
	Of    float64
}

// Before gives the routes that take a share of the requests like r before the one that was found for it.
func Before(found Result, r *Request) []Share {
	if found.Host == nil {
		return nil
	}
	routes := found.Host.Routes
	if found.Route != nil {
		routes = routes[:found.Index]
	}
	first := *r
	first.Random = 0
	var out []Share
	var taken uint32 // all shares of a request are drawn at once
	for _, rt := range routes {
		if rt.Match.Fraction > taken && check(&rt.Match, &first).part == matched {
			out = append(out, Share{rt, float64(rt.Match.Fraction-taken) / 1e6})
			taken = rt.Match.Fraction
		}
	}
	return out
}
