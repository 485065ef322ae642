package etcd

import (
	"fmt"
	"slices"
	"testing"

	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
	"github.com/weftmesh/weft/internal/control/source/etcd/etcdtest"
	"github.com/weftmesh/weft/internal/control/source/sourcetest"
)

// TestWentBack: an etcd that was restored from a backup, or has lost everything, is read anew by all replicas, which say so; what is
// applied afterwards counts.
func TestWentBack(t *testing.T) {
	for name, lost := range map[string]bool{"restored": false, "lost": true} {
		t.Run(name, func(t *testing.T) {
			server := etcdtest.Start(t)
			one, two := place(t, server, DefaultPrefix), place(t, server, DefaultPrefix)
			one.Put(t, "a", "1")
			server.Down(t)
			backup, left := server.Backup(t), "a=1"
			if lost {
				backup, left = "", ""
			}
			server.Up(t)
			set := replica(t, server, nil)
			apply(t, set, sourcetest.Service("b", "1"))
			for i := range 40 {
				one.Put(t, "a", fmt.Sprint(i))
			}
			listeners := []*sourcetest.Listener{sourcetest.Listen(t, one), sourcetest.Listen(t, two)}
			for _, l := range listeners {
				l.Await(t, "a=39 b=1")
			}
			server.Down(t)
			server.Restore(t, backup)
			server.Up(t)
			for _, l := range listeners {
				l.Await(t, left)
				l.AwaitThat(t, "a finding", func() bool {
					return slices.ContainsFunc(l.Last().Findings, func(f model.Finding) bool { return f.Code == "SourceWentBack" })
				})
			}
			if got := apply(t, set, sourcetest.Service("b", "1")); got != "b "+string(source.Created) {
				t.Errorf("applied again: %s", got)
			}
			one.Put(t, "c", "1")
			for _, l := range listeners {
				l.Await(t, sorted(left, "b=1 c=1"))
			}
		})
	}
}

func sorted(left, more string) string {
	if left == "" {
		return more
	}
	return left + " " + more
}
