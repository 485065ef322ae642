package compile

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/compile/workloads"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

// sidecar gives that of an object, nil for none or for one without effect. Of several for a whole namespace, or for the mesh, the
// oldest counts; so it does of those that select one workload.
func (c *compiler) sidecar(p *part) *model.Sidecar {
	s := p.Sidecar
	if s == nil {
		return nil
	}
	if s.Selector != nil {
		c.sameWorkload(p, s.Namespace, s.Selector, "spec.workloadSelector")
	} else if c.covered(p, topic{about: onPlace, a: "Sidecar", b: s.Namespace}) {
		return nil
	}
	c.linkSidecar(p)
	return s
}

// proxyConfig gives that of an object, nil for none or for one without effect. Of several of one reach the oldest counts.
func (c *compiler) proxyConfig(p *part) *model.ProxyConfig {
	pc := p.ProxyConfig
	if pc == nil || c.covered(p, topic{onPlace, "ProxyConfig", pc.Namespace, fmt.Sprint(pc.Selector)}) { // maps print sorted
		return nil
	}
	return pc
}

// sameWorkload reports a Sidecar or PeerAuthentication that selects a workload of another: the older one counts there.
func (c *compiler) sameWorkload(p *part, namespace string, selector map[string]string, field string) {
	const hint = "select different workloads"
	for _, older := range c.claim(&bid{place: topic{about: onPlace, a: "selecting " + p.Kind.Name, b: namespace}, selector: selector}) {
		if !meetable(selector, older.selector) {
			continue
		}
		if w := c.selectedByBoth(namespace, selector, older.selector); w != "" {
			p.Warn("DuplicatePolicy", field, hint, "%s is %s, and counts for workload %s", older.object.Ref(), age(older.object, p.Object), w)
			c.about(older.object).Warn("DuplicatePolicy", field, hint, "%s also selects workload %s, where it has no effect", p.Ref(), w)
			return
		}
		if maps.Equal(selector, older.selector) {
			p.Warn("DuplicatePolicy", field, hint, "%s is %s, and selects the same: this one has no effect", older.object.Ref(), age(older.object, p.Object))
			c.about(older.object).Warn("DuplicatePolicy", field, hint, "%s selects the same and has no effect", p.Ref())
			return
		}
	}
}

// meetable reports whether labels can fulfil two selectors.
func meetable(a, b map[string]string) bool {
	for k, v := range a {
		if w, ok := b[k]; ok && v != w {
			return false
		}
	}
	return true
}

// selectedByBoth gives the first workload, by name, that two selectors pick in a namespace; "" for none.
func (c *compiler) selectedByBoth(namespace string, a, b map[string]string) string {
	both := maps.Clone(a)
	maps.Copy(both, b)
	var names []string
	for _, r := range c.selected("WorkloadEntry", namespace, both) {
		names = append(names, r.GetName())
	}
	for _, r := range c.selected("Pod", namespace, both) {
		if pod := source.PodOf(r.Kube); pod != nil && !workloads.Ended(pod) && c.object(model.Ref{Kind: "WorkloadEntry", Namespace: namespace, Name: pod.Name}) == nil {
			names = append(names, pod.Name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	return namespace + "/" + slices.Min(names)
}

// linkSidecar reports hosts of a Sidecar that nobody has, and an egress proxy that is not there.
func (c *compiler) linkSidecar(p *part) {
	for i, e := range p.Sidecar.Egress {
		for j, h := range e.Hosts {
			if strings.HasPrefix(h.Host, "*") || h.Excluded || c.egressHas(p, h) {
				continue
			}
			p.Warn("HostNotFound", parts.At(parts.At("spec.egress", i)+".hosts", j), c.hostHint(h.Host, p.GetNamespace()),
				"there is neither a service nor a route for %s in %s", h.Host, egressNamespace(p, h))
		}
		if e.Bind.IsValid() {
			c.linkBind(p, &e, parts.At("spec.egress", i))
		}
	}
	if o := p.Sidecar.Outbound; o != nil && o.Proxy != nil {
		c.linkDestination(p, *o.Proxy, "spec.outboundTrafficPolicy.egressProxy", "what the mesh does not know cannot be reached")
	}
}

// linkBind reports hosts that are not reached at the address of an egress: those without its port, and of those whose connections say
// nothing of where they go, all but the first.
func (c *compiler) linkBind(p *part, e *model.Egress, field string) {
	first := ""
	for j, h := range e.Hosts {
		if strings.HasPrefix(h.Host, "*") || h.Excluded || len(c.rulers(h.Host)) > 0 {
			continue
		}
		known, protocol := false, model.Protocol("")
		for s := range c.service(h.Host).All() {
			if !egressIn(p, h, s.Namespace) {
				continue
			}
			known = true
			if at := s.Port(e.Port); at != nil {
				protocol = at.Protocol
			}
		}
		at := parts.At(field+".hosts", j)
		switch {
		case known && protocol == "":
			p.Warn("PortNotFound", at, "write a port of the host's as the egress's", "%s has no port %d: it is not reached at %s", h.Host, e.Port, e.Bind)
		case protocol == model.TCP && first != "":
			p.Warn("NoEffect", at, "give it an egress with another port", "connections to %s port %d go to %s", e.Bind, e.Port, first)
		case protocol == model.TCP:
			first = h.Host
		}
	}
}

// egressNamespace says where a Sidecar's host is looked for.
func egressNamespace(p *part, h model.EgressHost) string {
	switch {
	case h.Namespace == "*" || h.Namespace == "." && p.Sidecar.Namespace == "":
		return "any namespace"
	case h.Namespace == ".":
		return "namespace " + p.GetNamespace()
	}
	return "namespace " + h.Namespace
}

func (c *compiler) egressHas(p *part, h model.EgressHost) bool {
	for s := range c.service(h.Host).All() {
		if egressIn(p, h, s.Namespace) {
			return true
		}
	}
	for _, b := range c.rulers(h.Host) {
		if egressIn(p, h, b.routes.Namespace) {
			return true
		}
	}
	return false
}

// egressIn reports whether a host of a Sidecar may be one of that namespace.
func egressIn(p *part, h model.EgressHost, namespace string) bool {
	return h.Namespace == "*" || h.Namespace == namespace || h.Namespace == "." && (p.Sidecar.Namespace == "" || namespace == p.GetNamespace())
}
