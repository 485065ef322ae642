package local

import (
	"context"
	"slices"

	"github.com/weftmesh/weft/internal/api"
	"github.com/weftmesh/weft/internal/control/compile"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
	"github.com/weftmesh/weft/internal/control/source/planned"
	"github.com/weftmesh/weft/internal/offline"
)

// Diff says which requests would behave differently, and changes nothing. Deployments that do not run yet count as if they did, Services
// of the change have the Pods that they select, and what an object that is to be deleted was put over is in force again.
func (o objects) Diff(ctx context.Context, req api.DiffRequest) (api.DiffReply, error) {
	c, err := o.h.Ready(ctx)
	if err != nil {
		return api.DiffReply{}, err
	}
	decoded, findings := decode(req.Documents, req.Namespace)
	if source.HasErrors(findings) {
		findings = source.SortFindings(append(findings, beside(c, req.Documents, req.Namespace)...))
		return api.DiffReply{Refused: true, Findings: apiFindings(findings)}, nil
	}
	over := slices.Clip(decoded)
	var without []source.Key
	for _, r := range req.Refs {
		key, err := lookup(append(keysOf(c.Objects()), c.Applied()...), r)
		if err != nil {
			return api.DiffReply{}, err
		}
		if under := c.Beneath(key); under != nil {
			over = append(over, under)
			continue
		}
		without = append(without, key)
	}
	settings := c.Started()
	objects := c.Objects()
	ahead := compile.ConvertAhead(append(slices.Clip(objects), over...), settings)
	before, known := compile.Compile(compile.Input{Objects: planned.Complete(objects), Settings: settings, Ahead: ahead})
	clients := c.Clients()
	changed := planned.Reselect(objects, source.Overlay(objects, over, without))
	after, found := compile.Compile(compile.Input{Objects: planned.Complete(changed), Settings: settings, Ahead: ahead})
	was := make(map[model.Finding]bool, len(known))
	for _, f := range known {
		was[f] = true
	}
	found = slices.DeleteFunc(found, func(f model.Finding) bool { return was[f] })
	if findings = append(findings, found...); source.HasErrors(findings) {
		return api.DiffReply{Refused: true, Findings: apiFindings(findings)}, nil
	}
	reply, err := offline.Compared(withClients(before, clients), withClients(after, clients), o.h.Virtual(), req.Color)
	reply.Findings = apiFindings(findings)
	return reply, err
}
