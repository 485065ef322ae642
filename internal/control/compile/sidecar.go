package compile

import (
	"fmt"
	"strings"

	"github.com/weftmesh/weft/internal/control/compile/convert"
	"github.com/weftmesh/weft/internal/control/model"
)

// addSidecars puts Sidecars into the mesh. Of several for a whole namespace, or for the mesh, the oldest counts; so it does of those
// that select one workload.
func (c *compiler) addSidecars() {
	const hint = "keep one of them"
	first := map[string]*part{}
	for _, p := range c.byKind["Sidecar"] {
		s := p.Sidecar
		if s.Selector == nil {
			if older := first[s.Namespace]; older != nil {
				p.Warn("DuplicatePolicy", "", hint, "it has no effect: %s is older and covers the same workloads", older.Ref())
				older.Warn("DuplicatePolicy", "", hint, "%s covers the same workloads and has no effect", p.Ref())
				continue
			}
			first[s.Namespace] = p
		}
		c.linkSidecar(p)
		c.mesh.Sidecars = append(c.mesh.Sidecars, s)
	}
	c.sameWorkload()
}

// addProxyConfigs puts ProxyConfigs into the mesh. Of several of one reach the oldest counts.
func (c *compiler) addProxyConfigs() {
	const hint = "keep one of them"
	first := map[string]*part{}
	for _, p := range c.byKind["ProxyConfig"] {
		reach := p.ProxyConfig.Namespace + "/" + fmt.Sprint(p.ProxyConfig.Selector) // maps print sorted
		if older := first[reach]; older != nil {
			p.Warn("DuplicatePolicy", "", hint, "it has no effect: %s is older and covers the same workloads", older.Ref())
			older.Warn("DuplicatePolicy", "", hint, "%s covers the same workloads and has no effect", p.Ref())
			continue
		}
		first[reach] = p
		c.mesh.ProxyConfigs = append(c.mesh.ProxyConfigs, p.ProxyConfig)
	}
}

// sameWorkload reports Sidecars that select one workload: the older one counts there.
func (c *compiler) sameWorkload() {
	var chosen []*part
	for _, p := range c.byKind["Sidecar"] {
		if p.Sidecar.Selector != nil {
			chosen = append(chosen, p)
		}
	}
	for i, p := range chosen {
		for _, older := range chosen[:i] {
			if w := c.selectedByBoth(p.Sidecar, older.Sidecar); w != "" {
				p.Warn("DuplicatePolicy", "spec.workloadSelector", "select different workloads", "%s is older and counts for workload %s", older.Ref(), w)
				older.Warn("DuplicatePolicy", "spec.workloadSelector", "select different workloads", "%s also selects workload %s, where it has no effect", p.Ref(), w)
				break
			}
		}
	}
}

func (c *compiler) selectedByBoth(a, b *model.Sidecar) string {
	if a.Namespace != b.Namespace {
		return ""
	}
	found := ""
	for name, w := range c.mesh.Workloads.All() {
		if w.Namespace == a.Namespace && selects(a.Selector, w.Labels) && selects(b.Selector, w.Labels) && (found == "" || name < found) {
			found = name
		}
	}
	return found
}

// linkSidecar reports hosts of a Sidecar that nobody has, and an egress proxy that is not there.
func (c *compiler) linkSidecar(p *part) {
	for i, e := range p.Sidecar.Egress {
		for j, h := range e.Hosts {
			if strings.HasPrefix(h.Host, "*") || h.Excluded || h.Namespace == "~" || c.egressHas(p, h) {
				continue
			}
			p.Warn("HostNotFound", convert.At(convert.At("spec.egress", i)+".hosts", j), c.hostHint(h.Host, p.GetNamespace()),
				"there is neither a service nor a route for %s in namespace %s", h.Host, h.Namespace)
		}
	}
	if o := p.Sidecar.Outbound; o != nil && o.Proxy != nil {
		c.linkDestination(p, *o.Proxy, "spec.outboundTrafficPolicy.egressProxy")
	}
}

func (c *compiler) egressHas(p *part, h model.EgressHost) bool {
	in := func(namespace string) bool {
		return h.Namespace == "*" || h.Namespace == namespace || h.Namespace == "." && (p.Sidecar.Namespace == "" || namespace == p.GetNamespace())
	}
	if s := c.mesh.Services.Get(h.Host); s != nil && in(s.Namespace) {
		return true
	}
	for _, claim := range c.claims[h.Host] {
		if in(claim.routes.Namespace) {
			return true
		}
	}
	return false
}
