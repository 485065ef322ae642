// Package api is what the command line and the dashboard say to a running mesh: JSON over HTTP on a unix socket that only its
// owner can open. Long answers (logs, exec) are streams. The types here are the whole contract; Handler serves it, Client speaks
// it.
package api

import (
	"encoding/json"
	"time"
)

// Severity, as of findings.
const (
	SeverityError   = "error"
	SeverityWarning = "warning"
	SeverityInfo    = "info"
)

// CodeLeftOut is the code of the findings that name objects of kinds that are none of the mesh's.
const CodeLeftOut = "LeftOut"

// Ref names an object.
type Ref struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

// String gives "Kind/namespace/name".
func (r Ref) String() string { return r.Kind + "/" + r.Namespace + "/" + r.Name }

// Finding is one thing to tell the user about an object.
type Finding struct {
	Severity string `json:"severity"`
	Code     string `json:"code"`
	Object   Ref    `json:"object"`
	File     string `json:"file,omitempty"`
	Line     int    `json:"line,omitempty"`
	Field    string `json:"field,omitempty"`
	Message  string `json:"message"`
	Hint     string `json:"hint,omitempty"`
	// Text is the finding in one line, as the command line prints it.
	Text string `json:"text"`
}

// Change is what applying or deleting did to one object: "created", "configured", "unchanged", "deleted".
type Change struct {
	Object Ref    `json:"object"`
	Action string `json:"action"`
}

// Document is a file's content to apply or delete.
type Document struct {
	Name    string `json:"name"` // as findings shall call it
	Content []byte `json:"content"`
}

// ChangeRequest asks to apply or delete objects: those in Documents, and (delete only) those in Refs. All marks every applied
// object for deletion, AllIn every one of a namespace.
type ChangeRequest struct {
	Documents []Document `json:"documents,omitempty"`
	Refs      []Ref      `json:"refs,omitempty"`
	All       bool       `json:"all,omitempty"`
	AllIn     string     `json:"allIn,omitempty"`
	// Namespace is that of objects in Documents which name none; then none may name another. Empty is "default", and any may be named.
	Namespace string `json:"namespace,omitempty"`
	// IgnoreNotFound deletes those that are there, where it would delete nothing else.
	IgnoreNotFound bool `json:"ignoreNotFound,omitempty"`
	// DryRun reports without changing anything.
	DryRun bool `json:"dryRun,omitempty"`
}

// ChangeReply lists what was done. With an error among the findings nothing was.
type ChangeReply struct {
	Refused  bool      `json:"refused"`
	Changes  []Change  `json:"changes"`
	Findings []Finding `json:"findings"`
}

// Object is one object in force, or one that was refused.
type Object struct {
	Ref
	APIVersion string `json:"apiVersion"`
	Source     string `json:"source"` // FOLDER/FILE:LINE of one in a file; "applied", "runtime", "kubernetes" or "consul"
	// Refused says that nothing of it is in force: findings tell why, and there is neither time nor text.
	Refused  bool      `json:"refused,omitempty"`
	Created  time.Time `json:"created"`
	YAML     string    `json:"yaml"`
	Findings []Finding `json:"findings,omitempty"`
}

// Status is the state of the mesh at a glance.
type Status struct {
	Mesh         string      `json:"mesh"`
	Version      string      `json:"version"`
	PID          int         `json:"pid"`
	Started      time.Time   `json:"started"`
	Isolation    string      `json:"isolation"`
	Reason       string      `json:"reason"`  // why that isolation
	Control      string      `json:"control"` // "running", "stopped", or why it is not running
	ControlSince time.Time   `json:"controlSince"`
	Settled      bool        `json:"settled"` // every instance that is ready is known to the proxies
	XDSAddress   string      `json:"xdsAddress,omitempty"`
	Metrics      string      `json:"metrics,omitempty"` // URL of the aggregated metrics
	Gateways     []Published `json:"gateways"`
	Workloads    []Workload  `json:"workloads"`
	Proxies      []Proxy     `json:"proxies"`
	Findings     []Finding   `json:"findings"`
	AppliedCount int         `json:"appliedCount"`
	TrustDomain  string      `json:"trustDomain"`
	RootExpires  time.Time   `json:"rootExpires"`
	Sources      []string    `json:"sources"` // files and folders followed
}

// Published is a gateway's port on the host.
type Published struct {
	Port    int    `json:"port"`
	Address string `json:"address"` // "127.0.0.1:8080"
	// Scheme is what clients speak there: "http", "https", "tls" (not ended at the gateway), "tcp" or "udp" (another port than that of
	// TCP with the same number). Empty means that the control plane is away, and it is not known.
	Scheme string `json:"scheme,omitempty"`
}

// URL is how to name the port to a client: a URL where it speaks HTTP, as far as is known, or sends datagrams; else the address alone.
func (p *Published) URL() string {
	switch p.Scheme {
	case "", "http":
		return "http://" + p.Address
	case "https":
		return "https://" + p.Address
	case "udp":
		return "udp://" + p.Address
	}
	return p.Address
}

// Workload is one line of `weft ps`.
type Workload struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Gateway   bool   `json:"gateway,omitempty"`
	Desired   int    `json:"desired"`
	Ready     int    `json:"ready"`
	Restarts  int    `json:"restarts"`
	State     string `json:"state"`
	Reason    string `json:"reason,omitempty"`
	Pods      []Pod  `json:"pods"`
}

// Pod is one instance of a workload.
type Pod struct {
	Name      string    `json:"name"`
	IP        string    `json:"ip"`
	Ready     bool      `json:"ready"`
	State     string    `json:"state"`
	Reason    string    `json:"reason,omitempty"`
	Started   time.Time `json:"started"`
	Restarts  int       `json:"restarts"`
	Processes []Process `json:"processes"`
}

// Process is one process of a pod.
type Process struct {
	Name     string `json:"name"`
	PID      int    `json:"pid"`
	Restarts int    `json:"restarts"`
	Running  bool   `json:"running"`
	LastExit string `json:"lastExit,omitempty"`
	Version  string `json:"version,omitempty"` // of a proxy
	Ports    []int  `json:"ports,omitempty"`
}

// Upgraded is a proxy whose program was replaced by the one on disk.
type Upgraded struct {
	Pod  string `json:"pod"`
	From string `json:"from"` // the programs' versions
	To   string `json:"to"`
	PID  int    `json:"pid"`
}

// Proxy is a data plane's connection to the control plane.
type Proxy struct {
	Node       string    `json:"node"`
	Identity   string    `json:"identity"`
	Connected  time.Time `json:"connected"`
	Subscribed int       `json:"subscribed"` // resources asked for
	Rejected   []string  `json:"rejected,omitempty"`
	// State is synced, waiting, behind, slow, refused, reconnecting or gone; one that is gone left a short while ago and is expected back.
	State  string      `json:"state,omitempty"`
	Since  time.Time   `json:"since,omitzero"` // of the state; zero for synced
	Reason string      `json:"reason,omitempty"`
	Types  []ProxyType `json:"types,omitempty"`
}

// ProxyType counts what a proxy has of one type of resource.
type ProxyType struct {
	Type       string    `json:"type"` // "cds", "eds", "lds", "rds", "dns"
	Subscribed int       `json:"subscribed"`
	Resources  int       `json:"resources"`       // accepted in their newest version
	Stale      int       `json:"stale,omitempty"` // of which it has not accepted the newest version
	StaleSince time.Time `json:"staleSince,omitzero"`
	Missing    []string  `json:"missing,omitempty"` // asked for, and not known to the mesh
	Pending    int       `json:"pending,omitempty"` // responses that it has not answered
}

// Program is a program to run in the mesh without a manifest.
type Program struct {
	Name      string            `json:"name"`
	Namespace string            `json:"namespace,omitempty"`
	Port      int               `json:"port,omitempty"`
	Command   []string          `json:"command"`
	Env       map[string]string `json:"env,omitempty"`
	Dir       string            `json:"dir,omitempty"`
}

// LogQuery selects log lines.
type LogQuery struct {
	Namespace, Name, Process string
	Follow                   bool
	Tail                     int
	Since                    time.Time
}

// LogLine is one line that a process wrote; the log stream is one of them a line.
type LogLine struct {
	Time      time.Time `json:"time"`
	Namespace string    `json:"namespace"`
	Workload  string    `json:"workload"`
	Pod       string    `json:"pod"`
	Process   string    `json:"process"`
	Stderr    bool      `json:"stderr,omitempty"`
	Text      string    `json:"text"`
}

// Edge is one arrow of the service graph: who calls whom, over the window asked for.
type Edge struct {
	Source               string  `json:"source"` // workload; "unknown" for a peer without identity
	SourceNamespace      string  `json:"sourceNamespace"`
	SourceVersion        string  `json:"sourceVersion,omitempty"`
	Destination          string  `json:"destination"` // workload, or the host when there is none
	DestinationNamespace string  `json:"destinationNamespace"`
	DestinationVersion   string  `json:"destinationVersion,omitempty"`
	Service              string  `json:"service"` // host that was called
	Protocol             string  `json:"protocol"`
	Rate                 float64 `json:"rate"`       // requests (TCP: connections) per second
	Requests             float64 `json:"requests"`   // in the window
	ErrorShare           float64 `json:"errorShare"` // 5xx and failures, 0 to 1
	P50                  float64 `json:"p50"`        // milliseconds; 0 when unknown
	P95                  float64 `json:"p95"`
	P99                  float64 `json:"p99"`
	BytesRate            float64 `json:"bytesRate"` // TCP, both directions, per second
	MutualTLS            bool    `json:"mutualTLS"`
	// Unsent says that no request of the edge reached an instance, so that there is nothing to say of its encryption.
	Unsent bool `json:"unsent,omitempty"`
}

// The windows that a graph can be asked for.
const (
	MinWindow = 5 * time.Second
	MaxWindow = 10 * time.Minute
)

// Graph is the service graph over a window.
type Graph struct {
	Window time.Duration `json:"window"`
	// Covered is the part of the window for which there are samples.
	Covered time.Duration `json:"covered"`
	Edges   []Edge        `json:"edges"`
}

// ExplainRequest asks what would happen to a request.
type ExplainRequest struct {
	From    string        `json:"from"` // workload, service, pod or gateway, optionally "name.namespace"
	Method  string        `json:"method"`
	URL     string        `json:"url"`
	Headers []HeaderField `json:"headers,omitempty"`
	// ServerName is that of TLS that the client makes itself, where it is not the URL's host.
	ServerName string `json:"serverName,omitempty"`
	Color      bool   `json:"color,omitempty"` // of Text
}

// HeaderField is one header field line of a request.
type HeaderField struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// ExplainReply is the evaluator's report, for programs and for people.
type ExplainReply struct {
	Report json.RawMessage `json:"report"`
	Text   string          `json:"text"`
}

// DiffRequest asks which requests would behave differently with the objects of Documents applied, and without those of Refs.
type DiffRequest struct {
	Documents []Document `json:"documents,omitempty"`
	Refs      []Ref      `json:"refs,omitempty"`
	Namespace string     `json:"namespace,omitempty"` // as in ChangeRequest
	Color     bool       `json:"color,omitempty"`     // of Text
}

// DiffReply is the comparison, for programs and for people. With an error among the findings nothing was compared.
type DiffReply struct {
	Refused   bool            `json:"refused,omitempty"`
	Findings  []Finding       `json:"findings,omitempty"`
	Different bool            `json:"different"`
	Report    json.RawMessage `json:"report,omitempty"`
	Text      string          `json:"text,omitempty"`
}

// JoinRequest asks for what a proxy needs to join the mesh: who it is and where it listens, as in its bootstrap file.
type JoinRequest struct {
	Name           string            `json:"name"`
	Namespace      string            `json:"namespace"`
	ServiceAccount string            `json:"serviceAccount"`
	Workload       string            `json:"workload"`
	Labels         map[string]string `json:"labels,omitempty"`
	Gateway        bool              `json:"gateway,omitempty"`
	IP             string            `json:"ip,omitempty"`
	Control        string            `json:"control,omitempty"` // the addresses of the replicas, with commas; empty for the one that is asked
	StateDir       string            `json:"stateDir,omitempty"`
	Outbound       string            `json:"outbound,omitempty"`
	Inbound        string            `json:"inbound,omitempty"`
	ForwardProxy   string            `json:"forwardProxy,omitempty"`
	Admin          string            `json:"admin,omitempty"`
	DrainSeconds   *int              `json:"drainSeconds,omitempty"` // nil for the default
}

// JoinReply is the proxy's bootstrap file, with a token in it that proves who it is.
type JoinReply struct {
	Bootstrap json.RawMessage `json:"bootstrap"`
	// Notes say what else is needed.
	Notes []string `json:"notes,omitempty"`
}

// ControlAction asks the embedded control plane to "stop", "start" or "restart".
type ControlAction struct {
	Action string `json:"action"`
}

// ExecRequest runs a command inside a pod. Its reply switches the connection to frames, see Frame.
type ExecRequest struct {
	Namespace string   `json:"namespace,omitempty"`
	Name      string   `json:"name"` // pod, workload or service
	Command   []string `json:"command"`
}

// Error is the body of every refusal.
type Error struct {
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}
