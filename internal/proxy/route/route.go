// Package route decides, from configuration alone, where a connection and a request go. It is pure: the same answer for the same
// input, no clock, no state, no allocation. The proxy calls Chain, Find and Pick; `weft explain` calls FindTrace, which runs the
// same conditions and keeps what each of them said.
package route

import (
	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/message"
)

// Request is what matching reads of a request.
type Request struct {
	*message.Request
	// Random decides about matches that take a share of the requests: uniform in 0 to 999,999, drawn once per request.
	Random uint32
}

// Result is what Find found. Without Host no virtual host has the authority; without Route none of its routes matches. Either way
// the answer is 404 with flag NR.
type Result struct {
	Host  *conf.VirtualHost
	Route *conf.Route
	Index int // of Route in Host.Routes
}

// Find gives the first route of the authority's virtual host whose conditions hold.
func Find(t *conf.RouteTable, r *Request) Result {
	h := Host(t, r.Authority)
	if h == nil {
		return Result{}
	}
	i := first(h, r)
	if i < 0 {
		return Result{Host: h}
	}
	return Result{Host: h, Route: h.Routes[i], Index: i}
}

// first is the position of the first matching route, or -1. With an index it tries the candidate lists one after the other; each
// is in ascending order, so that a list is left as soon as it cannot improve on what was found.
func first(h *conf.VirtualHost, r *Request) int {
	ix := h.Index
	if ix == nil {
		for i, rt := range h.Routes {
			if check(&rt.Match, r).part == matched {
				return i
			}
		}
		return -1
	}
	path := pathOf(r.Path)
	best := try(h.Routes, ix.Exact[path], len(h.Routes), r)
	for _, n := range ix.PrefixLengths {
		if n > len(path) {
			break
		}
		best = try(h.Routes, ix.Prefix[path[:n]], best, r)
	}
	if best = try(h.Routes, ix.Rest, best, r); best == len(h.Routes) {
		return -1
	}
	return best
}

// try gives the first candidate before position best that matches, or best.
func try(routes []*conf.Route, candidates []int32, best int, r *Request) int {
	for _, c := range candidates {
		if int(c) >= best {
			break
		}
		if check(&routes[c].Match, r).part == matched {
			return int(c)
		}
	}
	return best
}

// Pick chooses from a weighted split by a random number, uniform over all of uint32. It returns nil only when there is nothing to
// choose from. A split whose weights are all zero goes to its first cluster.
func Pick(clusters []conf.WeightedCluster, total, random uint32) *conf.WeightedCluster {
	if len(clusters) == 0 {
		return nil
	}
	if len(clusters) == 1 || total == 0 {
		return &clusters[0]
	}
	point := uint32(uint64(random) * uint64(total) >> 32)
	for i := range clusters {
		if point < clusters[i].Weight {
			return &clusters[i]
		}
		point -= clusters[i].Weight
	}
	return &clusters[len(clusters)-1]
}
