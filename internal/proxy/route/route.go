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
	// GRPC says that it is a call of gRPC; Presented and Validated, that the client has shown a certificate, and a valid one.
	GRPC, Presented, Validated bool
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
	i, _ := first(h, r)
	if i < 0 {
		return Result{Host: h}
	}
	return Result{Host: h, Route: h.Routes[i], Index: i}
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
