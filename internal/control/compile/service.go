package compile

import (
	"github.com/weftmesh/weft/internal/control/model"
)

// addServices puts Kubernetes services into the mesh.
func (c *compiler) addServices() {
	for _, p := range c.byKind["Service"] {
		for _, s := range p.Services {
			c.addService(s, p)
		}
	}
}

func (c *compiler) addService(s *model.Service, p *part) {
	c.mesh.Services.Put(s.Host, s)
	c.owner[s] = p
	for _, a := range s.Addresses {
		c.mesh.ByAddress.Put(a, append(c.mesh.ByAddress.Get(a), s.Host))
	}
}
