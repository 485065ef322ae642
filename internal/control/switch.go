package control

import (
	"context"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/weftmesh/weft/internal/control/model"
)

// A change of PeerAuthentications concerns both ends of connections, whose proxies hear of it at different times. So that neither
// speaks what the other does not take, the side that takes more goes first and the side that takes less goes last:
//
//  1. workloads take what the old and the new settings take, and clients go by the old ones;
//  2. clients go by the new ones;
//  3. workloads take what the new ones do.
//
// Each step begins when the proxies have answered the one before. A proxy that does not answer holds the change up for Options.StepTime
// at each: then it may lose requests.
//
// Replicas of the control plane do not know of each other's proxies. They hear of a change at about the same time, so where there may be
// others (Options.Replicated) each step lasts StepTime: a replica that is late by less, its proxies' answers included, is not overtaken.

// parting is how long, after clients have gone over, requests may still be under way that chose their connection before.
const parting = 50 * time.Millisecond

// switches reports whether a change needs the steps. PeerAuthentications are made anew with the mesh's settings, so what they say counts.
func switches(from, to *model.Mesh, d model.Delta) bool {
	return (d.All || len(d.Policies) > 0) && !reflect.DeepEqual(from.PeerAuthentications, to.PeerAuthentications)
}

// lead takes the first two steps, and gives what is left for the third.
func (c *Control) lead(ctx context.Context, from, to *model.Mesh, d model.Delta) (left model.Delta) {
	policies := func() model.Delta {
		if !d.All {
			return model.Delta{Policies: maps.Clone(d.Policies)}
		}
		namespaces := map[string]bool{}
		for _, p := range slices.Concat(from.PeerAuthentications, to.PeerAuthentications) {
			namespaces[p.Namespace] = true
		}
		return model.Delta{Policies: namespaces}
	}
	left = policies()
	c.step(ctx, from, to.PeerAuthentications, policies())
	c.step(ctx, to, from.PeerAuthentications, d)
	select {
	case <-time.After(parting):
	case <-ctx.Done():
	}
	return left
}

// step serves a mesh whose workloads take what other settings take as well, until the proxies have it, those of other replicas too.
func (c *Control) step(ctx context.Context, mesh *model.Mesh, others []*model.PeerAuthentication, d model.Delta) {
	between := *mesh
	between.OtherPeers, between.Changing = others, true
	ctx, cancel := context.WithTimeout(ctx, c.options.StepTime)
	defer cancel()
	c.server.Publish(&between, d)(ctx)
	if c.options.Replicated {
		<-ctx.Done()
	}
}
