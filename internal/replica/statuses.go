package replica

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"reflect"

	"github.com/weftmesh/weft/internal/control/source"
	"github.com/weftmesh/weft/internal/control/status"
)

// keepStatuses writes statuses to Kubernetes whenever this replica is the one that does.
func (r *replica) keepStatuses(ctx context.Context) error {
	return r.cluster.Lead(ctx, r.name(), func(ctx context.Context) {
		r.cluster.KeepStatuses(ctx, r.control.Changes(ctx), r.told)
	})
}

// name tells this replica from others. Host and process are for people; a restarted one is another.
func (r *replica) name() string {
	host, _ := os.Hostname()
	return fmt.Sprintf("%s_%d_%s", host, os.Getpid(), rand.Text()[:8])
}

// kept gives the status that whoever leads has written of an object, so that every replica tells the same times; nil where there is none.
func (r *replica) kept(o *source.Object) status.Status {
	if r.etcd != nil && o.Origin.Layer == source.LayerApplied {
		return r.etcd.Status(o)
	}
	if has := status.Of(o.Kube); has != nil && !reflect.ValueOf(has).Elem().IsZero() {
		return has
	}
	return nil
}

// told is what statuses are made from. The mesh comes first, so that it is not newer than the objects.
func (r *replica) told() status.Input {
	mesh := r.control.Mesh()
	return status.Input{Mesh: mesh, Findings: r.control.Findings(), Objects: r.control.Objects(), Addresses: r.Addresses()}
}
