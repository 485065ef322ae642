package compile

import (
	"slices"
	"strings"

	"github.com/weftmesh/weft/internal/control/compile/convert"
	"github.com/weftmesh/weft/internal/control/model"
)

// addPolicies puts policies into the mesh. Of several PeerAuthentications for a whole namespace, or for the mesh, the oldest
// counts, as in Istio.
func (c *compiler) addPolicies() {
	first := map[string]*part{}
	for _, p := range c.byKind["PeerAuthentication"] {
		if len(p.PeerAuthentication.Selector) == 0 {
			if older := first[p.PeerAuthentication.Namespace]; older != nil {
				const hint = "keep one of them"
				p.Warn("DuplicatePolicy", "", hint, "it has no effect: %s is older and covers the same workloads", older.Ref())
				older.Warn("DuplicatePolicy", "", hint, "%s covers the same workloads and has no effect", p.Ref())
				continue
			}
			first[p.PeerAuthentication.Namespace] = p
		}
		c.mesh.PeerAuthentications = append(c.mesh.PeerAuthentications, p.PeerAuthentication)
	}
	for _, p := range c.byKind["RateLimit"] {
		c.linkLimitService(p)
		c.mesh.RateLimits = append(c.mesh.RateLimits, p.RateLimit)
	}
	for _, p := range c.byKind["AuthorizationPolicy"] {
		c.checkLayer(p)
		c.mesh.AuthorizationPolicies = append(c.mesh.AuthorizationPolicies, p.AuthorizationPolicy)
	}
}

// linkLimitService reports a rate-limit service that is not there: nothing is said of requests then.
func (c *compiler) linkLimitService(p *part) {
	s := p.RateLimit.Service
	if s == nil {
		return
	}
	fate := "requests are not limited"
	if s.Deny {
		fate = "requests are refused"
	}
	switch to := c.mesh.Services.Get(s.Host); {
	case to == nil || !to.ExportTo.VisibleFrom(to.Namespace, p.GetNamespace()):
		p.Warn("HostNotFound", "spec.service.host", c.hostHint(s.Host, p.GetNamespace()), "there is no service %s: %s", s.Host, fate)
	case to.Port(s.Port) == nil:
		p.Warn("PortNotFound", "spec.service.port", "", "service %s has no port %d (it has %s): %s", s.Host, s.Port, portList(to), fate)
	}
}

// checkLayer warns of conditions on requests where a workload that the policy selects has only ports that carry none. They fail closed.
func (c *compiler) checkLayer(p *part) {
	field := requestCondition(p.AuthorizationPolicy)
	if field == "" {
		return
	}
	for _, name := range slices.Sorted(c.mesh.Workloads.Keys()) {
		w := c.mesh.Workloads.Get(name)
		if p.AuthorizationPolicy.Namespace != "" && p.AuthorizationPolicy.Namespace != w.Namespace || !selects(p.AuthorizationPolicy.Selector, w.Labels) || len(w.Ports) == 0 {
			continue
		}
		if slices.ContainsFunc(w.Ports, func(port model.WorkloadPort) bool { return port.Protocol.IsHTTP() || port.Protocol == model.Auto }) {
			continue
		}
		p.Warn("RequestConditionOnTCP", field, "use ports, principals, namespaces or addresses",
			"workload %s carries no HTTP: with a condition on requests, ALLOW never holds for its connections and DENY holds for all of them", name)
		return
	}
}

// requestCondition gives the first field of a policy that only a request can answer.
func requestCondition(a *model.AuthorizationPolicy) string {
	for i, r := range a.Rules {
		field := convert.At("spec.rules", i)
		for j, o := range r.To {
			if len(o.Hosts)+len(o.NotHosts)+len(o.Methods)+len(o.NotMethods)+len(o.Paths)+len(o.NotPaths) > 0 {
				return convert.At(field+".to", j) + ".operation"
			}
		}
		for j, w := range r.When {
			if strings.HasPrefix(w.Key, "request.") {
				return convert.At(field+".when", j) + ".key"
			}
		}
	}
	return ""
}
