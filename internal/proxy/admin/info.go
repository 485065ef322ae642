package admin

import (
	"os"
	"strconv"
	"time"

	"github.com/weftmesh/weft/internal/wire"
)

// serverInfo is Envoy's admin.v3.ServerInfo, as far as it applies, and the process.
type serverInfo struct {
	Version string  `json:"version"`
	State   string  `json:"state"` // LIVE, DRAINING or PRE_INITIALIZING
	Uptime  string  `json:"uptime_current_epoch"`
	Options options `json:"command_line_options"`
	Node    node    `json:"node"`
	PID     int     `json:"pid"` // as the process itself sees it
}

type options struct {
	Epoch       int    `json:"restart_epoch"`
	ServiceNode string `json:"service_node"`
}

type node struct {
	ID       string         `json:"id"`
	Cluster  string         `json:"cluster"`
	Metadata map[string]any `json:"metadata"`
}

func nodeOf(n wire.Node) node {
	return node{ID: n.ID(), Cluster: n.Workload + "." + n.Namespace, Metadata: map[string]any{
		"NAME": n.Name, "NAMESPACE": n.Namespace, "SERVICE_ACCOUNT": n.ServiceAccount, "WORKLOAD_NAME": n.Workload, "LABELS": n.Labels, "CLUSTER_ID": n.Cluster,
	}}
}

func (f *Facts) state() string {
	switch f.Unready() {
	case "":
		return "LIVE"
	case Draining:
		return "DRAINING"
	}
	return "PRE_INITIALIZING"
}

// Draining is what Facts.Unready says of a proxy that drains.
const Draining = "draining"

func (f *Facts) serverInfo() serverInfo {
	return serverInfo{
		Version: f.Version, State: f.state(), Uptime: strconv.Itoa(int(time.Since(f.Started).Seconds())) + "s",
		Options: options{f.Epoch, f.Node.ID()}, Node: nodeOf(f.Node), PID: os.Getpid(),
	}
}
