package compile

import (
	"reflect"
	"strings"

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/model"
)

// joinPolicy puts a policy into the mesh. Of several PeerAuthentications for a whole namespace, or for the mesh, the oldest counts,
// as in Istio.
func (c *compiler) joinPolicy(u *unit) {
	p := c.own(u.rec)
	next := unit{peer: c.peerAuthentication(p), policy: p.AuthorizationPolicy, limit: p.RateLimit, sidecar: c.sidecar(p), proxy: c.proxyConfig(p)}
	if p.BackendTLS != nil {
		c.linkBackendTLS(p)
	}
	if p.RateLimit != nil {
		c.linkLimitService(p)
	}
	if p.AuthorizationPolicy != nil {
		c.checkLayer(p)
	}
	if reflect.DeepEqual(u.peer, next.peer) && reflect.DeepEqual(u.policy, next.policy) && reflect.DeepEqual(u.limit, next.limit) &&
		reflect.DeepEqual(u.sidecar, next.sidecar) && reflect.DeepEqual(u.proxy, next.proxy) {
		return
	}
	c.state.touch(u)
	u.peer, u.policy, u.limit, u.sidecar, u.proxy = next.peer, next.policy, next.limit, next.sidecar, next.proxy
	c.state.touch(u)
}

// peerAuthentication gives that of an object, nil for none or for one without effect.
func (c *compiler) peerAuthentication(p *part) *model.PeerAuthentication {
	pa := p.PeerAuthentication
	if pa == nil {
		return nil
	}
	if len(pa.Selector) > 0 {
		c.sameWorkload(p, pa.Namespace, pa.Selector, "spec.selector")
		return pa
	}
	if c.covered(p, topic{about: onPlace, a: "PeerAuthentication", b: pa.Namespace}) {
		return nil
	}
	return pa
}

// covered reports whether an older policy covers the workloads that a place stands for; both are told then.
func (c *compiler) covered(p *part, place topic) bool {
	list := c.claim(&bid{place: place})
	if len(list) == 0 {
		return false
	}
	const hint = "keep one of them"
	p.Warn("DuplicatePolicy", "", hint, "it has no effect: %s is %s, and covers the same workloads", list[0].object.Ref(), age(list[0].object, p.Object))
	c.about(list[0].object).Warn("DuplicatePolicy", "", hint, "%s covers the same workloads and has no effect", p.Ref())
	return true
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
	switch to := c.serviceFor(s.Host, p.GetNamespace()); {
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
	if w := c.opaqueWorkload(p.AuthorizationPolicy.Namespace, p.AuthorizationPolicy.Selector); w != nil {
		p.Warn("RequestConditionOnTCP", field, "use ports, principals, namespaces or addresses",
			"workload %s/%s carries no HTTP: with a condition on requests, ALLOW never holds for its connections and DENY holds for all of them", w.Namespace, w.Name)
	}
}

// requestCondition gives the first field of a policy that only a request can answer.
func requestCondition(a *model.AuthorizationPolicy) string {
	for i, r := range a.Rules {
		field := parts.At("spec.rules", i)
		for j, o := range r.To {
			if len(o.Hosts)+len(o.NotHosts)+len(o.Methods)+len(o.NotMethods)+len(o.Paths)+len(o.NotPaths) > 0 {
				return parts.At(field+".to", j) + ".operation"
			}
		}
		for j, w := range r.When {
			if strings.HasPrefix(w.Key, "request.") {
				return parts.At(field+".when", j) + ".key"
			}
		}
	}
	return ""
}
