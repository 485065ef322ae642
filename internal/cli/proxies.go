package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/weftmesh/weft/internal/api"
)

// proxyStates are the states of a proxy, from good to bad.
var proxyStates = []string{"synced", "waiting", "behind", "slow", "refused", "reconnecting", "gone"}

func proxyPaint(state string) paint {
	switch state {
	case "synced":
		return green
	case "waiting", "behind":
		return yellow
	}
	return red
}

// proxyColumns are the types of resources, in the order of a request's way.
var proxyColumns = []struct{ typ, head string }{{"lds", "LISTENERS"}, {"rds", "ROUTES"}, {"cds", "CLUSTERS"}, {"eds", "ENDPOINTS"}, {"dns", "NAMES"}}

// reasonLength is how much of a reason a line has; findings have it whole.
const reasonLength = 100

func (s *session) printProxies(all []api.Proxy, now time.Time) {
	columns := []column{{head: "PROXY"}, {head: "STATE"}, {head: "SINCE"}, {head: "CONNECTED", spare: len(proxyColumns) + 1}}
	for i, c := range proxyColumns {
		columns = append(columns, column{head: c.head, spare: i + 1})
	}
	columns = append(columns, column{head: "IDENTITY", spare: len(proxyColumns) + 2}, column{head: "REASON", elastic: true})
	count := map[string]int{}
	rows := make([][]cell, len(all))
	for i, p := range all {
		state := stateOf(p)
		count[state]++
		connected := age(p.Connected, now)
		if state == "gone" {
			connected = "-"
		}
		row := []cell{text(nodeName(p.Node)), painted(proxyPaint(state), state), text(age(p.Since, now)), text(connected)}
		for _, c := range proxyColumns {
			row = append(row, held(p, c.typ))
		}
		rows[i] = append(row, painted(dim, p.Identity), painted(dim, short(p.Reason)))
	}
	var parts []string
	for _, state := range proxyStates {
		if n := count[state]; n > 0 {
			parts = append(parts, s.out.paint(proxyPaint(state), fmt.Sprintf("%d %s", n, state)))
		}
	}
	s.out.printf("%s %s\n\n", s.out.paint(dim, fmt.Sprintf("%-14s", "proxies")), strings.Join(parts, ", "))
	s.out.table(columns, rows)
}

// stateOf is the state that the mesh tells; meshes of older versions tell only what is refused.
func stateOf(p api.Proxy) string {
	switch {
	case p.State != "":
		return p.State
	case len(p.Rejected) > 0:
		return "refused"
	}
	return "synced"
}

// held is what a proxy has of a type: a number, or how many of how many where some are stale.
func held(p api.Proxy, typ string) cell {
	for _, t := range p.Types {
		switch {
		case t.Type != typ:
		case t.Stale > 0:
			return cell{text: fmt.Sprintf("%d/%d", t.Resources, t.Resources+t.Stale), paint: yellow, right: true}
		default:
			return number("%d", t.Resources)
		}
	}
	return cell{text: "-", right: true}
}

// short makes one line of what a client wrote.
func short(reason string) string {
	return cut(strings.Join(strings.Fields(reason), " "), reasonLength)
}

// nodeName takes the instance's name out of a node id (role~ip~name.namespace~domain).
func nodeName(id string) string {
	if p := strings.Split(id, "~"); len(p) == 4 {
		return p[2]
	}
	return id
}
