package control

import (
	"context"
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
// at each: then it may lose requests. Other changes do not wait: they are served during the steps, with the settings of the step, but for
//
//   - DestinationRules, which wait for the second step with what comes with or after them, since they too say whether clients speak mutual
//     TLS;
//   - another change of PeerAuthentications, which waits, with what comes with or after it, until the first is through.
//
// Replicas of the control plane do not know of each other's proxies. They hear of a change at about the same time, so where there may be
// others (Options.Replicated) each step lasts StepTime: a replica that is late by less, its proxies' answers included, is not overtaken.

// parting is how long, after clients have gone over, requests may still be under way that chose their connection before.
const parting = 50 * time.Millisecond

// switching is a change of PeerAuthentications that is under way. Its owner is the goroutine of follow.
type switching struct {
	from, to    []*model.PeerAuthentication
	clientsOver bool          // the second step has begun
	answered    chan struct{} // closed when the step is over

	mesh *model.Mesh // what the step serves, but for the settings
	held model.Delta // what differs from it in what was published, and waits for the second step
}

// differ reports whether meshes have other PeerAuthentications. They are made anew with the mesh's settings, so what they say counts.
func differ(from, to []*model.PeerAuthentication) bool { return !reflect.DeepEqual(from, to) }

// namespaces are those of either end's PeerAuthentications, as a delta.
func (s *switching) namespaces() model.Delta {
	all := map[string]bool{}
	for _, p := range slices.Concat(s.from, s.to) {
		all[p.Namespace] = true
	}
	return model.Delta{Policies: all}
}

// take has the step serve another mesh, or keeps it for the second one; it gives what is to be served again.
func (s *switching) take(mesh *model.Mesh, d model.Delta) model.Delta {
	if !s.clientsOver && (!s.held.Empty() || d.All || len(d.Destinations) > 0) {
		s.held.Add(d)
		return model.Delta{}
	}
	s.mesh = mesh
	return d
}

// between is the mesh as the step serves it.
func (s *switching) between() *model.Mesh {
	out := *s.mesh
	out.PeerAuthentications, out.OtherPeers, out.Changing = s.from, s.to, true
	if s.clientsOver {
		out.PeerAuthentications, out.OtherPeers = s.to, s.from
	}
	return &out
}

// before is the mesh as far as it is in force while the steps last.
func (s *switching) before() *model.Mesh {
	out := *s.mesh
	out.PeerAuthentications = s.from
	return &out
}

// step serves the mesh as the step has it, and sees to it that answered is closed when the proxies have it, those of other replicas too.
func (c *Control) step(ctx context.Context, d model.Delta) {
	s := c.switching
	answered := c.server.Publish(s.between(), d)
	over, last := make(chan struct{}), s.clientsOver
	s.answered = over
	go func() { // ends with the step or the context
		defer close(over)
		bounded, cancel := context.WithTimeout(ctx, c.options.StepTime)
		defer cancel()
		answered(bounded)
		if c.options.Replicated {
			<-bounded.Done()
		}
		if last {
			select {
			case <-time.After(parting):
			case <-ctx.Done():
			}
		}
	}()
}

// stepOver is closed when the next step of what is under way may begin; nil when nothing is.
func (c *Control) stepOver() <-chan struct{} {
	if c.switching == nil {
		return nil
	}
	return c.switching.answered
}

// advance takes the next step of the change that is under way, or ends it.
func (c *Control) advance(ctx context.Context) {
	s := c.switching
	d := s.namespaces()
	d.Add(s.held)
	if s.clientsOver {
		c.switching = nil
		c.compiled.Store(c.latest)
		c.server.Publish(c.latest.mesh, d)
		c.tell()
		c.publish(ctx) // what waited
		return
	}
	s.clientsOver, s.mesh, s.held = true, c.latest.mesh, model.Delta{}
	c.partly(c.compiled.Load().generation)
	c.step(ctx, d)
	c.tell()
}

// partly makes what is compiled known as far as it is in force: with the settings from before the change, up to a generation.
func (c *Control) partly(generation uint64) {
	c.compiled.Store(&compiled{generation: generation, mesh: c.switching.before(), findings: c.latest.findings})
}
