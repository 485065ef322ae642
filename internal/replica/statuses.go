package replica

import (
	"context"
	"crypto/rand"
	"os"

	"github.com/weftmesh/weft/internal/control/status"
)

// keepStatuses writes statuses to Kubernetes whenever this replica is the one that does.
func (r *replica) keepStatuses(ctx context.Context) error {
	host, _ := os.Hostname()                 // for people; what follows tells replicas apart
	identity := host + "_" + rand.Text()[:8] // a restarted process is another one
	return r.cluster.Lead(ctx, identity, func(ctx context.Context) {
		r.cluster.KeepStatuses(ctx, r.control.Changes(ctx), r.told)
	})
}

// told is what statuses are made from. The mesh comes first, so that it is not newer than the objects.
func (r *replica) told() status.Input {
	mesh := r.control.Mesh()
	return status.Input{Mesh: mesh, Findings: r.control.Findings(), Objects: r.control.Objects(), Addresses: r.Addresses()}
}
