package local

import (
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/serve"
	"github.com/weftmesh/weft/internal/identity"
	"github.com/weftmesh/weft/internal/wire"
)

// withClients gives the mesh with the sidecars that are connected as workloads, though no object says that they are there: they send
// requests like all others. They have no address, since connections may come from another one, and addresses tell endpoints apart.
// Gateways without an object have nothing to send. The mesh itself stays as it is.
func withClients(mesh *model.Mesh, clients []serve.Client) *model.Mesh {
	more := *mesh
	more.Workloads = mesh.Workloads.Copy()
	for _, c := range clients {
		id, err := identity.Parse(c.Identity)
		key := c.Namespace + "/" + c.Name
		if err != nil || c.Name == "" || c.State == serve.Gone || c.Role != string(wire.Sidecar) {
			continue
		}
		if w := more.Workloads.Get(key); w != nil {
			if w.Bare { // its object does not say that it has one
				with := *w
				with.Bare = false
				more.Workloads.Put(key, &with)
			}
			continue
		}
		more.Workloads.Put(key, &model.Workload{Namespace: c.Namespace, Name: c.Name, Owner: c.Name, Labels: c.Labels, ServiceAccount: id.ServiceAccount, Ready: true})
	}
	return &more
}
