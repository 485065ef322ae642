// Package demand says what the local runtime is asked to run: it makes workloads of Deployments, each field checked, and findings of what
// will not be as the object says. It starts nothing.
package demand

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/weftmesh/weft/internal/runtime/probe"
)

// Severity of a Finding.
type Severity string

// The severities.
const (
	Refused Severity = "refused" // the object does not run
	Warning Severity = "warning" // it runs, without the field
	Info    Severity = "info"    // it runs, without the field, which few will miss
)

// Finding is something in an object that the local runtime cannot do.
type Finding struct {
	Severity  Severity
	Kind      string // "Deployment", "Service"
	Namespace string
	Name      string
	Field     string // path in the object
	Message   string
}

// Key names an object.
type Key struct{ Namespace, Name string }

func (k Key) String() string { return k.Namespace + "/" + k.Name }

// Refusal says in one word why a workload does not run; empty for one that does.
type Refusal string

// The refusals.
const (
	NoCommand Refusal = "NoCommand" // images are not run: the container has no command
	Invalid   Refusal = "Invalid"   // a field; the reason names it
)

// Workload is a Deployment as the runtime runs it; immutable.
type Workload struct {
	Key
	Gateway  bool
	Replicas int
	Recreate bool   // strategy: old pods leave before new ones come
	Revision string // changes with the template and with Restart
	Labels   map[string]string
	Account  string // service account
	Sidecar  bool
	Grace    time.Duration
	Template *corev1.PodTemplateSpec
	Inits    []Container
	Apps     []Container

	// State is NoCommand or Invalid when it cannot run, and reason says why.
	State  Refusal
	Reason string
}

// Container is one application process, checked.
type Container struct {
	Name    string
	Command []string
	Dir     string
	Env     []corev1.EnvVar // values and field references only
	Ports   []corev1.ContainerPort
	Probes  map[string]*Check // "startup", "liveness", "readiness"
	PreStop *corev1.LifecycleHandler
}

// Check is a probe, checked.
type Check struct {
	probe.Timing
	Handler corev1.ProbeHandler
}

// NamespaceOf gives the namespace that an object means when it names this one, or none.
func NamespaceOf(ns string) string {
	if ns == "" {
		return "default"
	}
	return ns
}
