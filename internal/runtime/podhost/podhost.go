// Package podhost is the process that holds the pods of `weft up`: their namespaces, links, redirect rules and processes. It is the
// same binary re-executed, PID 1 of its own pid namespace, so everything it made ends with it. It decides nothing: package
// runtime tells it over a socket (Client) what to make, start, signal and connect to, and hears when a process ends.
//
// In ports mode it makes no namespaces and is only the parent of all processes, so that they end with `weft up` there too.
package podhost

import (
	"fmt"
	"net/netip"
	"syscall"
)

// Setup is what the pod host is told first.
type Setup struct {
	// Netns gives each pod its own network, mount and host name namespaces.
	Netns bool `json:"netns"`
	// Gateway is the bridge's address with the pods' network, IPv4.
	Gateway netip.Prefix `json:"gateway"`
	// Host is an address of the pods' network that no pod has: sidecars have no route to it, and ask elsewhere for it.
	Host netip.Addr `json:"host,omitzero"`
	// Mark exempts a socket from the redirect; it needs CAP_NET_ADMIN, which the sidecar alone has.
	Mark int `json:"mark"`
	// SelfMark has a socket's connections to the pod's own address come in as others' do.
	SelfMark int `json:"selfMark"`
	// Ports of the sidecar's transparent listeners, and those of its own that inbound connections may reach.
	Outbound uint16   `json:"outbound"`
	Inbound  uint16   `json:"inbound"`
	DNS      uint16   `json:"dns"`
	Open     []uint16 `json:"open"`
	// Hidden are folders that applications see empty; those that do not exist are left out. In ports mode they are not hidden.
	Hidden []string `json:"hidden,omitempty"`
}

// Pod is one pod to make. In ports mode only its name counts.
type Pod struct {
	Name     string     `json:"name"` // unique in the pod host
	Hostname string     `json:"hostname"`
	Address  netip.Addr `json:"address"`
	// Capture redirects the pod's traffic to its sidecar.
	Capture bool `json:"capture"`
	// Files are put over the host's files, in this pod only. A target that the host lacks is reported by CreatePod, not an error.
	Files []File `json:"files,omitempty"`
}

// File is bind-mounted: Source is seen at Target.
type File struct {
	Source string `json:"source"`
	Target string `json:"target"`
}

// Process is one process to start: in a session of its own, in the pod's namespaces.
type Process struct {
	Pod  string   `json:"pod"`
	Path string   `json:"path"` // absolute
	Args []string `json:"args"` // with argument 0
	Env  []string `json:"env"`
	Dir  string   `json:"dir"` // absolute
	// Sidecar leaves it CAP_NET_ADMIN over the pod's network (other capabilities no process of a pod has), the hidden folders, and
	// signals to all. Any other process is an application.
	Sidecar bool `json:"sidecar,omitempty"`
}

// Exit is how a process ended.
type Exit struct {
	Code   int            `json:"code"`
	Signal syscall.Signal `json:"signal,omitempty"` // not 0 when a signal ended it
}

// String says it as the shell does.
func (e Exit) String() string {
	if e.Signal != 0 {
		return "signal: " + e.Signal.String()
	}
	return fmt.Sprintf("exit status %d", e.Code)
}

// The operations.
const (
	opPod    = "pod"
	opRemove = "remove"
	opStart  = "start"
	opSignal = "signal"
	opDial   = "dial"
)

// request is one packet to the pod host. Process ids are chosen by the client, so that an exit can't overtake its start.
type request struct {
	ID      uint64         `json:"id"`
	Op      string         `json:"op"`
	Setup   *Setup         `json:"setup,omitempty"` // in the first packet only
	Pod     *Pod           `json:"pod,omitempty"`
	Name    string         `json:"name,omitempty"` // of the pod: remove, dial
	Process *Process       `json:"process,omitempty"`
	Proc    uint64         `json:"proc,omitempty"`
	Signal  syscall.Signal `json:"signal,omitempty"`
	Address netip.AddrPort `json:"address,omitzero"`
}

// reply answers the request of the same ID; with ID 0 it says that the process Proc ended, or, first of all, that the pod host is
// ready. A started process comes with its pidfd, a dial with its socket (connecting).
type reply struct {
	ID    uint64        `json:"id"`
	Err   string        `json:"err,omitempty"`
	Errno syscall.Errno `json:"errno,omitempty"`
	Notes []string      `json:"notes,omitempty"`
	Proc  uint64        `json:"proc,omitempty"`
	Exit  *Exit         `json:"exit,omitempty"`
}
