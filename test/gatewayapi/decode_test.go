package gatewayapi

import (
	"context"
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

// decode reads all objects, oldest first, through the decoder that files go through.
func (c *cluster) decode(ctx context.Context, w client.WithWatch, into *[]*source.Object) []model.Finding {
	var findings []model.Finding
	for _, list := range read {
		l := list()
		if err := w.List(ctx, l); err != nil {
			c.t.Fatal(err)
		}
		items, err := meta.ExtractList(l)
		if err != nil {
			c.t.Fatal(err)
		}
		for _, item := range items {
			o := item.(client.Object)
			decoded, found := source.Decode(source.LayerApplied, o.GetName(), marshal(w, o))
			findings = append(findings, found...)
			for _, d := range decoded {
				c.objs[d.Key()] = o
				*into = append(*into, d)
			}
		}
	}
	slices.SortFunc(*into, source.Older)
	return findings
}
