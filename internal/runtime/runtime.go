// Package runtime is the local runtime of `weft up`: it runs the Deployments of ordinary Kubernetes YAML as processes, each pod in
// its own network namespace with its sidecar, and reports them as the Pods and EndpointSlices that a cluster would report.
//
// Everything that needs privilege or must not survive happens in one child process, the pod host (package podhost). The Runtime
// keeps all decisions: which pods exist, in which order their processes start and stop, when they are ready.
package runtime

import (
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/weftmesh/weft/internal/broker"
	"github.com/weftmesh/weft/internal/identity"
	"github.com/weftmesh/weft/internal/runtime/demand"
	"github.com/weftmesh/weft/internal/runtime/logs"
	"github.com/weftmesh/weft/internal/runtime/podhost"
)

// Isolation says how workloads are kept apart.
type Isolation string

// The isolations.
const (
	Auto  Isolation = "auto"  // Netns where the kernel allows it, else Ports
	Netns Isolation = "netns" // a network namespace for each pod, traffic captured by nftables
	Ports Isolation = "ports" // the host's network; ports told by environment
)

// Options configure a Runtime. StateDir, ProxyBinary, Control, TrustDomain, Roots and Token are required.
type Options struct {
	// StateDir keeps service addresses, programs added by AddProgram, logs, and the proxies' own state. One Runtime at a time
	// uses it; New fails while another holds it.
	StateDir string
	// RunDir holds unix sockets and bootstrap files; it is made with mode 0700 and removed by Run's end. Its path must be short.
	// Empty picks a folder under /run/weft, $XDG_RUNTIME_DIR or the temporary directory.
	RunDir string
	// PodHost is the command that ends in PodHostMain; default: this executable with the argument PodHostCommand.
	PodHost []string
	// ProxyBinary is the path of weft-proxy.
	ProxyBinary string
	Isolation   Isolation // default Auto
	// PodCIDR and ServiceCIDR are IPv4; defaults 10.77.0.0/16 and 10.78.0.0/16.
	PodCIDR, ServiceCIDR netip.Prefix
	// PublishAddress is where gateways listen on the host; default 127.0.0.1.
	PublishAddress string
	// Publish maps a gateway's port to the host's port; 0 picks a free one. A port that is not named is published as itself.
	Publish map[uint16]uint16
	// Control is the control plane's address as proxies are told it: "unix:///path", or "host:port" in ports mode.
	Control     string
	TrustDomain string
	Cluster     string // cluster id of the proxies' nodes; default "weft"
	// Roots gives the PEM certificates that the control plane's certificate leads to. It is asked at each start of a proxy.
	Roots func() (string, error)
	// Token gives the proof of identity of a pod. It is asked at each start of a proxy.
	Token func(identity.Peer) (string, error)
	// CommandDirs are searched for a relative command before PATH.
	CommandDirs []string
	// Images maps an image name pattern (path.Match, or a plain prefix) to the command that stands for it, for Deployments
	// without a `command`.
	Images map[string][]string
	// Hidden are folders that workloads see empty in netns mode, besides StateDir and RunDir: keys and sockets are in them.
	Hidden []string
	// DisableGateway leaves out the built-in ingress gateway.
	DisableGateway bool
	// AccessLog lets the proxies log each request among the lines of `weft logs`; RegistryOnly lets them refuse destinations that
	// the mesh does not know.
	AccessLog, RegistryOnly bool
	// DrainTime bounds how long a stopping proxy may finish its live requests; default 5 s.
	DrainTime time.Duration
	Log       *slog.Logger
}

// PodHostCommand is the hidden subcommand of weft that must call PodHostMain.
const PodHostCommand = "pod-host"

// PodHostMain is the main function of the pod host process and returns its exit code. Only the Runtime starts it, with a
// connected socket as file descriptor 3; it ends when that socket does.
func PodHostMain(args []string) int { return podhost.Main(args) }

// Desired is what should run. The Runtime does not change the objects and they must not change after SetDesired.
type Desired struct {
	Deployments     []*appsv1.Deployment
	Services        []*corev1.Service
	ServiceAccounts []*corev1.ServiceAccount
	// Gateways are Services of the built-in gateway, in any namespace and whatever they select, unless another one has the name.
	Gateways []*corev1.Service
}

// Observed is what runs, in the shapes of a cluster's API, sorted by namespace and name. It is the reader's own copy of the
// lists; the objects are shared and must not be changed.
type Observed struct {
	Pods []*corev1.Pod
	// Services are the desired ones, and those of programs and of the built-in gateway, with clusterIP assigned.
	Services       []*corev1.Service
	EndpointSlices []*discoveryv1.EndpointSlice
	Findings       []Finding
}

// Severity of a Finding.
type Severity = demand.Severity

// The severities.
const (
	Refused = demand.Refused
	Warning = demand.Warning
	Info    = demand.Info
)

// Finding is something in an object that the local runtime cannot do.
type Finding = demand.Finding

// ProgramSpec is a program to run in the mesh without a manifest (`weft run`).
type ProgramSpec struct {
	Name      string            `json:"name"`
	Namespace string            `json:"namespace,omitempty"` // default "default"
	Port      uint16            `json:"port,omitempty"`      // where it listens; 0 for a program that only calls
	Command   []string          `json:"command"`
	Env       map[string]string `json:"env,omitempty"`
	Dir       string            `json:"dir,omitempty"`
}

// State of a workload or of a pod, in one word.
type State string

// The states.
const (
	Pending    State = "Pending"          // namespaces or sidecar not there yet
	Starting   State = "Starting"         // processes run, not yet ready
	Running    State = "Running"          // ready
	NotReady   State = "NotReady"         // runs, but its readiness probe fails or its sidecar is away
	CrashLoop  State = "CrashLoopBackOff" // a process ended and waits for its next start
	Stopping   State = "Terminating"
	Stalled    State = "UpdateFailing" // of a workload: what ran before serves, and what shall replace it ends again and again
	NoCommand  State = State(demand.NoCommand)
	Invalid    State = State(demand.Invalid)
	ScaledDown State = "ScaledDown"
)

// WorkloadStatus is one line of `weft ps`.
type WorkloadStatus struct {
	Namespace, Name string
	Gateway         bool
	Desired, Ready  int
	Restarts        int // of application processes and sidecars
	State           State
	Reason          string // why it is not Running; one sentence
	Pods            []PodStatus
}

// PodStatus is one instance of a workload.
type PodStatus struct {
	Name        string
	IP          string
	Ready       bool
	State       State
	Reason      string
	Started     time.Time
	Restarts    int
	Processes   []ProcessStatus
	AdminSocket string // of its proxy: metrics, dumps; empty without one
}

// ProcessStatus is one process of a pod: "istio-proxy" for the sidecar, else the container's name.
type ProcessStatus struct {
	Name     string
	PID      int // in the namespace of `weft up`; 0 while not running
	Restarts int
	Running  bool
	LastExit string // "exit status 1", "signal: killed"; empty before the first end
	Version  string // of a sidecar's program, once it was ready
	Ports    []uint16
}

// Selector picks pods by any of its non-empty fields.
type Selector struct {
	Namespace string
	Name      string // of a workload, a pod or (by label app) a service
	Process   string // container name, or "istio-proxy"
}

// LogOptions say which lines Logs gives.
type LogOptions = logs.Options

// LogLine is one line that a process wrote.
type LogLine = logs.Line

// Stdio are the streams of Exec; nil ones are /dev/null.
type Stdio struct {
	In       io.Reader
	Out, Err io.Writer
}

// ErrNotFound is in the error when a pod, workload or program is not known.
var ErrNotFound = errors.New("not found")

// Published is a gateway's port and where the host listens for it.
type Published = broker.Published

// Unpublished is a gateway's port on which the host does not let us listen.
type Unpublished = broker.Unpublished
