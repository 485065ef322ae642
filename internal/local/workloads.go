package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/weftmesh/weft/internal/api"
	"github.com/weftmesh/weft/internal/runtime"
)

// workloads is the part of the API that speaks of what runs.
type workloads struct{ m *Mesh }

func (w workloads) AddProgram(_ context.Context, p api.Program) error {
	err := w.m.runtime.AddProgram(runtime.ProgramSpec{Name: p.Name, Namespace: p.Namespace, Port: uint16(p.Port), Command: p.Command, Env: p.Env, Dir: p.Dir})
	if err != nil {
		return &api.InvalidError{Message: err.Error()}
	}
	return nil
}

func (w workloads) RemoveProgram(_ context.Context, namespace, name string) error {
	return named(w.m.runtime.RemoveProgram(namespace, name), "program", namespace, name)
}

func (w workloads) Restart(_ context.Context, namespace, name string) error {
	return named(w.m.runtime.Restart(namespace, name), "workload", namespace, name)
}

func (w workloads) Upgrade(ctx context.Context, namespace, name string) ([]api.Upgraded, error) {
	done, err := w.m.runtime.Upgrade(ctx, namespace, name)
	out := make([]api.Upgraded, len(done))
	for i, u := range done {
		out[i] = api.Upgraded{Pod: u.Pod, From: u.From, To: u.To, PID: u.PID}
	}
	return out, named(err, "workload", namespace, name)
}

// named turns the runtime's "not found" into one that says of what.
func named(err error, kind, namespace, name string) error {
	if errors.Is(err, runtime.ErrNotFound) {
		return &api.NotFoundError{Message: fmt.Sprintf("no %s %q in namespace %q", kind, name, namespace), Hint: "weft ps lists what runs"}
	}
	return err
}

func (w workloads) Logs(ctx context.Context, q api.LogQuery, line func(api.LogLine) error) error {
	if q.Name != "" && !w.known(q.Namespace, q.Name) {
		return &api.NotFoundError{Message: fmt.Sprintf("nothing called %q runs", q.Name), Hint: "weft ps --wide lists workloads and instances"}
	}
	sel := runtime.Selector{Namespace: q.Namespace, Name: q.Name, Process: q.Process}
	for l := range w.m.runtime.Logs(ctx, sel, runtime.LogOptions{Follow: q.Follow, Tail: q.Tail, Since: q.Since}) {
		err := line(api.LogLine{Time: l.Time, Namespace: l.Namespace, Workload: l.Workload, Pod: l.Pod, Process: l.Process, Stderr: l.Stderr, Text: l.Text})
		if err != nil {
			return err
		}
	}
	return nil
}

// known reports whether a workload, an instance, or an app label has that name.
func (w workloads) known(namespace, name string) bool {
	for _, wl := range w.m.runtime.Workloads() {
		if namespace != "" && wl.Namespace != namespace {
			continue
		}
		if wl.Name == name {
			return true
		}
		for _, p := range wl.Pods {
			if p.Name == name {
				return true
			}
		}
	}
	for _, p := range w.m.runtime.Observed().Pods {
		if p.Labels["app"] == name && (namespace == "" || p.Namespace == namespace) {
			return true
		}
	}
	return false
}

func (w workloads) Exec(ctx context.Context, r api.ExecRequest, in io.Reader, out, errOut io.Writer) (int, error) {
	pod, ok := w.findPod(r.Namespace, r.Name)
	if !ok {
		return 0, &api.NotFoundError{Message: fmt.Sprintf("nothing called %q runs in namespace %q", r.Name, r.Namespace), Hint: "weft ps lists what runs"}
	}
	return w.m.runtime.Exec(ctx, r.Namespace, pod, r.Command, runtime.Stdio{In: in, Out: out, Err: errOut})
}

// findPod finds an instance by its own name, its workload's, or its app label, and prefers a ready one.
func (w workloads) findPod(namespace, name string) (pod string, ok bool) {
	app := map[string]bool{}
	for _, p := range w.m.runtime.Observed().Pods {
		app[p.Name] = p.Namespace == namespace && p.Labels["app"] == name
	}
	ready := false
	for _, wl := range w.m.runtime.Workloads() {
		for _, p := range wl.Pods {
			if wl.Namespace != namespace || wl.Name != name && p.Name != name && !app[p.Name] {
				continue
			}
			if !ok || p.Ready && !ready {
				pod, ok, ready = p.Name, true, p.Ready
			}
		}
	}
	return pod, ok
}

// list gives the workloads as the API shows them.
func (w workloads) list() []api.Workload {
	all := w.m.runtime.Workloads()
	out := make([]api.Workload, len(all))
	for i, wl := range all {
		pods := make([]api.Pod, len(wl.Pods))
		for j, p := range wl.Pods {
			procs := make([]api.Process, len(p.Processes))
			for k, pr := range p.Processes {
				ports := make([]int, len(pr.Ports))
				for n, port := range pr.Ports {
					ports[n] = int(port)
				}
				procs[k] = api.Process{Name: pr.Name, PID: pr.PID, Restarts: pr.Restarts, Running: pr.Running, LastExit: pr.LastExit, Version: pr.Version, Ports: ports}
			}
			pods[j] = api.Pod{Name: p.Name, IP: p.IP, Ready: p.Ready, State: string(p.State), Reason: p.Reason, Started: p.Started, Restarts: p.Restarts, Processes: procs}
		}
		out[i] = api.Workload{Namespace: wl.Namespace, Name: wl.Name, Gateway: wl.Gateway, Desired: wl.Desired, Ready: wl.Ready,
			Restarts: wl.Restarts, State: string(wl.State), Reason: wl.Reason, Pods: pods}
	}
	return out
}

// Graph computes the service graph.
func (m *Mesh) Graph(ctx context.Context, window time.Duration) (api.Graph, error) {
	m.collector.Refresh(ctx)
	edges, covered := m.collector.Edges(window)
	g := api.Graph{Window: window, Covered: covered, Edges: make([]api.Edge, len(edges))}
	seconds := max(covered.Seconds(), 1)
	for i, e := range edges {
		share := 0.0
		if e.Requests > 0 {
			share = e.Errors / e.Requests
		}
		g.Edges[i] = api.Edge{
			Source: e.Source, SourceNamespace: e.SourceNamespace, SourceVersion: e.SourceVersion,
			Destination: e.Destination, DestinationNamespace: e.DestinationNamespace, DestinationVersion: e.DestinationVersion,
			Service: e.Service, Protocol: e.Protocol, MutualTLS: e.MutualTLS, Unsent: e.Unsent,
			Rate: e.Requests / seconds, Requests: e.Requests, ErrorShare: share, BytesRate: e.Bytes / seconds,
			P50: e.P50, P95: e.P95, P99: e.P99,
		}
	}
	return g, nil
}
