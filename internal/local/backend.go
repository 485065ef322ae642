package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weftmesh/weft/internal/api"
	"github.com/weftmesh/weft/internal/control"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
	"github.com/weftmesh/weft/internal/runtime"
	"github.com/weftmesh/weft/internal/version"
)

func (m *Mesh) backend() api.Backend {
	w := workloads{m}
	return api.Backend{Objects: Objects(m, nil), Workloads: w, Executor: w, Observer: m, Lifecycle: m}
}

func (m *Mesh) gatherers() []prometheus.Gatherer { return []prometheus.Gatherer{m.collector} }

// Down begins the shutdown.
func (m *Mesh) Down(context.Context) error { m.down(); return nil }

// Control stops, starts or restarts the embedded control plane.
func (m *Mesh) Control(ctx context.Context, action string) error {
	switch action {
	case "stop":
		return m.plane.stop(ctx)
	case "start":
		return m.plane.start(ctx)
	case "restart":
		if err := m.plane.stop(ctx); err != nil {
			return err
		}
		return m.plane.start(ctx)
	}
	return &api.InvalidError{Message: fmt.Sprintf("control %q: want stop, start or restart", action)}
}

// Status gives the state of the mesh at a glance.
func (m *Mesh) Status(context.Context) (api.Status, error) {
	c, state, since := m.plane.get()
	s := api.Status{
		Mesh: m.opt.Mesh, Version: version.String(), PID: os.Getpid(), Started: m.started,
		Isolation: string(m.runtime.Mode()), Reason: m.runtime.Reason(),
		Control: state, ControlSince: since, TrustDomain: m.opt.Settings.TrustDomain, RootExpires: m.authority.RootExpiry(),
		Workloads: workloads{m}.list(), Sources: m.opt.Paths,
		Gateways: []api.Published{}, Proxies: []api.Proxy{},
	}
	var mesh *model.Mesh // nil without a control plane, and until it has compiled
	if c != nil {
		mesh = c.Mesh()
	}
	for _, p := range m.runtime.Published() {
		s.Gateways = append(s.Gateways, api.Published{Port: int(p.Port), Address: p.Address, Scheme: gatewayScheme(mesh, p)})
	}
	findings := append(m.Findings(c), portFindings(m.runtime.Unpublished())...)
	if c != nil {
		s.Settled = m.settled(c)
		findings = append(findings, c.Findings()...)
		for _, o := range c.Objects() {
			if o.Origin.Layer == "applied" {
				s.AppliedCount++
			}
		}
		if a := c.Addr(); a != nil {
			s.XDSAddress = a.String()
		}
		if a := c.HTTPAddr(); a != nil {
			s.Metrics = "http://" + a.String() + "/metrics"
		}
		s.Proxies = Proxies(c)
	}
	s.Findings = apiFindings(findings)
	return s, nil
}

// Proxies are those that are connected to a control plane, and those that left it and are expected back.
func Proxies(c *control.Control) []api.Proxy {
	all := []api.Proxy{}
	for _, cl := range c.Clients() {
		p := api.Proxy{Node: cl.NodeID, Identity: cl.Identity, Connected: cl.Connected, State: string(cl.State), Since: cl.Since, Reason: cl.Reason}
		for _, t := range cl.Types {
			p.Subscribed += len(t.Subscriptions)
			p.Types = append(p.Types, api.ProxyType{Type: t.Type, Subscribed: len(t.Subscriptions), Resources: t.Resources,
				Stale: t.Stale, StaleSince: t.StaleSince, Missing: t.Missing, Pending: t.Pending})
			for _, n := range t.Nacks {
				p.Rejected = append(p.Rejected, fmt.Sprintf("%s: %s", t.Type, n.Message))
			}
		}
		all = append(all, p)
	}
	return all
}

// APIFindings gives findings as the API has them, errors first.
func APIFindings(fs []model.Finding) []api.Finding { return apiFindings(fs) }

// gatewayScheme is what clients of the gateways' port speak, as api.Published has it. mesh may be nil.
func gatewayScheme(mesh *model.Mesh, port runtime.Published) string {
	switch {
	case port.UDP:
		return "udp"
	case mesh == nil:
		return ""
	}
	for _, g := range mesh.Gateways {
		for i := range g.Servers {
			if s := &g.Servers[i]; s.Protocol != model.UDP && opens(mesh, s, port.Port) {
				return serverScheme(s)
			}
		}
	}
	return ""
}

// opens reports whether a gateway listens on a port for a server, which may name that of a Service that leads there.
func opens(mesh *model.Mesh, s *model.Server, port uint16) bool {
	if s.Port == port {
		return true
	}
	for _, w := range mesh.Workloads.All() {
		if w.Gateway && model.TargetPort(w.Targets, s.Port, false) == port {
			return true
		}
	}
	return false
}

func serverScheme(s *model.Server) string {
	switch {
	case s.Protocol.IsHTTP():
		return "http"
	case s.TerminatesHTTPS():
		return "https"
	case s.Protocol == model.HTTPS, s.Protocol == model.TLS, s.TLS != nil && s.TLS.Mode != model.TLSDisable:
		return "tls"
	}
	return "tcp"
}

// Findings turns what the runtime cannot do into findings like all others, with the place where it is written as long as
// the control plane, which may be nil, knows it.
func (m *Mesh) Findings(c *control.Control) []model.Finding {
	fs := m.runtime.Observed().Findings
	written := map[model.Ref]*source.Object{}
	if c != nil && len(fs) > 0 {
		for _, o := range c.Objects() {
			written[o.Ref()] = o
		}
	}
	out := make([]model.Finding, len(fs))
	for i, f := range fs {
		severity := map[runtime.Severity]model.Severity{runtime.Refused: model.Error, runtime.Warning: model.Warning, runtime.Info: model.Info}
		ref := model.Ref{Kind: f.Kind, Namespace: f.Namespace, Name: f.Name}
		if o := written[ref]; o != nil {
			out[i] = o.Finding(severity[f.Severity], "LocalRuntime", f.Field, f.Message, "")
			continue
		}
		out[i] = model.Finding{Severity: severity[f.Severity], Code: "LocalRuntime", Object: ref, Field: f.Field, Message: f.Message}
	}
	return out
}

// portFindings say which gateway ports are not reachable, and what to do.
func portFindings(ports []runtime.Unpublished) []model.Finding {
	out := make([]model.Finding, len(ports))
	for i, p := range ports {
		port := fmt.Sprintf("gateway port %d", p.Port)
		if p.UDP {
			port += " of UDP"
		}
		out[i] = model.Finding{Severity: model.Error, Code: "PortNotPublished",
			Object:  model.Ref{Kind: "Deployment", Namespace: "istio-system", Name: "istio-ingressgateway"},
			Message: fmt.Sprintf("%s: cannot listen on %s: %v", port, p.Address, p.Err),
			Hint:    fmt.Sprintf("it is tried again every second; for another port of this machine: weft up --publish %d=%d", p.Port, uint32(p.Port)%50000+10000)}
		switch {
		case errors.Is(p.Err, syscall.EADDRINUSE):
			out[i].Message = fmt.Sprintf("%s: another program listens on %s", port, p.Address)
		case errors.Is(p.Err, syscall.EACCES):
			out[i].Message = fmt.Sprintf("%s: this user may not listen on %s", port, p.Address)
		}
	}
	return out
}
