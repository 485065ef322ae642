package local

import (
	"slices"
	"testing"

	"github.com/weftmesh/weft/internal/api"
	"github.com/weftmesh/weft/internal/control/source"
)

// TestTheAPIKnowsAllKinds compares the list that the command line uses with what the control plane reads.
func TestTheAPIKnowsAllKinds(t *testing.T) {
	var read []string
	for _, k := range source.Kinds() {
		read = append(read, k.Name)
	}
	slices.Sort(read)
	if read = slices.Compact(read); !slices.Equal(read, api.Kinds()) {
		t.Errorf("the control plane reads\n%v\nthe API lists\n%v", read, api.Kinds())
	}
}
