package explain

import (
	"github.com/weftmesh/weft/internal/proxy/filter/authz"
	"github.com/weftmesh/weft/internal/wire"
)

// datagrams follows the first datagram of a client, which decides for all until its session ends.
func (e *evaluation) datagrams() {
	if e.view.Client.Role != wire.Gateway {
		e.report.Outcome = "pass through"
		e.report.Summary = "sidecars leave datagrams alone: they go where the network takes them, unprotected"
		return
	}
	ln := e.listener()
	if ln == nil {
		return
	}
	d := ln.Datagrams
	if d == nil {
		e.refuse(0, "", "port %d of UDP is HTTP/3's", e.talk.port)
		return
	}
	if len(d.RBAC) > 0 {
		v := verdict(d.RBAC, &authz.Input{Port: e.arrives()})
		if e.report.Policy = &v; !v.Allowed {
			e.refuse(0, "", "refused by %s: %s", e.report.From.Workload, v.text())
			return
		}
	}
	e.report.Outcome = "forward"
	e.destinations(d.Clusters, d.TotalWeight)
}
