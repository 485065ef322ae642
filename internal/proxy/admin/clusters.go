package admin

import (
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// Cluster is a running cluster.
type Cluster struct {
	Name string `json:"name"`
	// In use now, and the limits.
	Connections, Pending, Requests, Retries int64
	Limits
	// High are the limits for requests of high priority; nil where there are none.
	High      *Limits
	Endpoints []Endpoint
	// Names are what endpoints are found by.
	Names []Name `json:"-"`
}

// Name is a name of DNS that stands for endpoints.
type Name struct {
	Name        string    `json:"name"`
	Addresses   []string  `json:"addresses"`
	Asked, Next time.Time // the last lookup, and the next; zero for none
	Trouble     string    `json:"trouble,omitempty"` // why there are no addresses, or no new ones
}

// String is the state of the name in words.
func (n *Name) String() string {
	s := strings.Join(n.Addresses, " ")
	if n.Trouble != "" {
		s = strings.TrimPrefix(s+"; "+n.Trouble, "; ")
	}
	if !n.Asked.IsZero() {
		s += "; asked " + n.Asked.UTC().Format(time.RFC3339)
	}
	if !n.Next.IsZero() {
		s += ", again " + n.Next.UTC().Format(time.RFC3339)
	}
	return s
}

// Endpoint is an endpoint as its users have found it.
type Endpoint struct {
	Address, Hostname, Workload string
	// Healthy is what the control plane says; Ejected and Failing what outlier detection and health checks have found. Condition is
	// all of it in words.
	Healthy, Draining, Degraded bool
	Ejected, Failing            bool
	Condition                   string
	MutualTLS                   bool
	Weight, Priority            uint32
	Region, Zone, SubZone       string
	Active, Open, Idle          int // requests; connections; those without a request
	LastFailure                 string
	FailedAt                    time.Time
}

// flags are Envoy's health flags: "healthy", or all that apply.
func (e *Endpoint) flags() string {
	s := ""
	for _, f := range []struct {
		set  bool
		text string
	}{{e.Failing, "/failed_active_hc"}, {e.Ejected, "/failed_outlier_check"}, {!e.Healthy, "/failed_eds_health"}, {e.Degraded, "/degraded_eds_health"}, {e.Draining, "/eds_status_draining"}} {
		if f.set {
			s += f.text
		}
	}
	if s == "" {
		return "healthy"
	}
	return s
}

// writeClusters writes Envoy's text form, and below each endpoint what Envoy does not have.
func writeClusters(w io.Writer, list []Cluster) {
	for _, c := range list {
		fmt.Fprintf(w, "%s::observability_name::%s\n", c.Name, c.Name)
		c.Limits.write(w, c.Name+"::default_priority")
		if c.High != nil {
			c.High.write(w, c.Name+"::high_priority")
		}
		fmt.Fprintf(w, "%s::added_via_api::true\n", c.Name)
		for i := range c.Names {
			fmt.Fprintf(w, "%s::name::%s::%s\n", c.Name, c.Names[i].Name, c.Names[i].String())
		}
		for i := range c.Endpoints {
			e := &c.Endpoints[i]
			for _, line := range e.lines() {
				fmt.Fprintf(w, "%s::%s::%s::%s\n", c.Name, e.Address, line[0], line[1])
			}
		}
	}
}

// Limits are the circuit breakers of one priority; 0 is none.
type Limits struct{ MaxConnections, MaxPending, MaxRequests, MaxRetries uint32 }

// write writes a line for each, in Envoy's text form.
func (l *Limits) write(w io.Writer, of string) {
	fmt.Fprintf(w, "%s::max_connections::%d\n", of, unlimited(l.MaxConnections))
	fmt.Fprintf(w, "%s::max_pending_requests::%d\n", of, unlimited(l.MaxPending))
	fmt.Fprintf(w, "%s::max_requests::%d\n", of, unlimited(l.MaxRequests))
	fmt.Fprintf(w, "%s::max_retries::%d\n", of, unlimited(l.MaxRetries))
}

func unlimited(n uint32) uint32 {
	if n == 0 {
		return 1<<32 - 1
	}
	return n
}

func (e *Endpoint) lines() [][2]string {
	number := strconv.Itoa
	lines := [][2]string{
		{"cx_active", number(e.Open)}, {"rq_active", number(e.Active)}, {"hostname", e.Hostname}, {"health_flags", e.flags()},
		{"weight", number(int(e.Weight))}, {"region", e.Region}, {"zone", e.Zone}, {"sub_zone", e.SubZone}, {"canary", "false"},
		{"priority", number(int(e.Priority))}, {"cx_idle", number(e.Idle)}, {"workload", e.Workload},
		{"mutual_tls", strconv.FormatBool(e.MutualTLS)}, {"condition", e.Condition},
	}
	if e.LastFailure != "" {
		lines = append(lines, [2]string{"last_failure", e.FailedAt.UTC().Format(time.RFC3339) + " " + e.LastFailure})
	}
	return lines
}

// clusterStatuses is envoy.admin.v3.Clusters in JSON; fields that Envoy does not have are ours: names, workload, mutual_tls,
// condition, last_failure.
func clusterStatuses(list []Cluster) any {
	statuses := []any{}
	for _, c := range list {
		hosts := []any{}
		for i := range c.Endpoints {
			hosts = append(hosts, c.Endpoints[i].status())
		}
		status := map[string]any{
			"name": c.Name, "observability_name": c.Name, "added_via_api": true, "host_statuses": hosts,
			"circuit_breakers": map[string]any{"thresholds": c.thresholds()},
			"in_use":           map[string]int64{"connections": c.Connections, "pending_requests": c.Pending, "requests": c.Requests, "retries": c.Retries},
		}
		if len(c.Names) > 0 {
			status["names"] = c.Names
		}
		statuses = append(statuses, status)
	}
	return map[string]any{"cluster_statuses": statuses}
}

func (c *Cluster) thresholds() []any {
	of := func(l Limits) map[string]any {
		return map[string]any{"max_connections": unlimited(l.MaxConnections), "max_pending_requests": unlimited(l.MaxPending),
			"max_requests": unlimited(l.MaxRequests), "max_retries": unlimited(l.MaxRetries)}
	}
	list := []any{of(c.Limits)}
	if c.High != nil {
		high := of(*c.High)
		high["priority"] = "HIGH"
		list = append(list, high)
	}
	return list
}

func (e *Endpoint) status() any {
	eds := "HEALTHY"
	switch {
	case e.Draining:
		eds = "DRAINING"
	case !e.Healthy:
		eds = "UNHEALTHY"
	case e.Degraded:
		eds = "DEGRADED"
	}
	gauge := func(name string, n int) any {
		return map[string]string{"type": "GAUGE", "name": name, "value": strconv.Itoa(n)}
	}
	s := map[string]any{
		"address":       socketAddress(e.Address),
		"stats":         []any{gauge("cx_active", e.Open), gauge("cx_idle", e.Idle), gauge("rq_active", e.Active)},
		"health_status": map[string]any{"eds_health_status": eds, "failed_outlier_check": e.Ejected, "failed_active_health_check": e.Failing},
		"weight":        e.Weight, "priority": e.Priority, "hostname": e.Hostname,
		"locality": map[string]string{"region": e.Region, "zone": e.Zone, "sub_zone": e.SubZone},
		"workload": e.Workload, "mutual_tls": e.MutualTLS, "condition": e.Condition,
	}
	if e.LastFailure != "" {
		s["last_failure"], s["last_failure_time"] = e.LastFailure, e.FailedAt.UTC()
	}
	return s
}

// socketAddress is envoy.config.core.v3.Address of "host:port", or of a unix socket's path.
func socketAddress(address string) any {
	host, port, err := net.SplitHostPort(address)
	n, bad := strconv.Atoi(port)
	if err != nil || bad != nil {
		return map[string]any{"pipe": map[string]string{"path": address}}
	}
	return map[string]any{"socket_address": map[string]any{"address": host, "port_value": n}}
}
