package replica

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/weftmesh/weft/internal/api"
	"github.com/weftmesh/weft/internal/control"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/serve"
	"github.com/weftmesh/weft/internal/explain"
	"github.com/weftmesh/weft/internal/identity"
	"github.com/weftmesh/weft/internal/local"
	"github.com/weftmesh/weft/internal/version"
	"github.com/weftmesh/weft/internal/wire"
)

func (r *replica) backend() api.Backend {
	return api.Backend{Objects: local.Objects(r, r.kept), Workloads: noWorkloads{}, Executor: noWorkloads{}, Observer: r, Lifecycle: r, Joiner: r}
}

// Ready implements local.Host, as the ones below do.
func (r *replica) Ready(ctx context.Context) (*control.Control, error) {
	return local.AwaitMesh(ctx, r.control)
}

// Findings gives none: all are the control plane's own.
func (r *replica) Findings(*control.Control) []model.Finding { return nil }

// Virtual says no: the addresses of services are Kubernetes'.
func (r *replica) Virtual() bool { return false }

// Ejected knows of none: proxies are elsewhere, and are not asked.
func (r *replica) Ejected(context.Context, *model.Workload) map[explain.Ejected]string { return nil }

// Inside gives the URL as it is: nothing is published at other ports here.
func (r *replica) Inside(_ *model.Mesh, _, raw string) string { return raw }

// Status implements api.Observer.
func (r *replica) Status(context.Context) (api.Status, error) {
	s := api.Status{
		Mesh: r.Mesh, Version: version.String(), PID: os.Getpid(), Started: r.started, Isolation: "none", Reason: "a control plane by itself",
		Control: "running", ControlSince: r.started, Settled: r.control.Mesh() != nil, TrustDomain: r.Settings.TrustDomain,
		RootExpires: r.control.Authority().RootExpiry(), Sources: r.sources(), Workloads: []api.Workload{}, Gateways: []api.Published{},
		Proxies: orElsewhere(local.Proxies(r.control), len(r.Etcd) > 0 || r.Kubeconfig != ""), Findings: local.APIFindings(r.control.Findings()),
	}
	if sources := r.control.Waiting(); sources != "" {
		s.Control = "waiting for " + sources
	}
	for _, o := range r.control.Objects() {
		if o.Origin.Layer == "applied" {
			s.AppliedCount++
		}
	}
	if a := r.control.Addr(); a != nil {
		s.XDSAddress = a.String()
	}
	if a := r.control.HTTPAddr(); a != nil {
		s.Metrics = "http://" + a.String() + "/metrics"
	}
	return s, nil
}

// orElsewhere says of proxies that are gone from here that they may be at another replica, if there may be others: each knows its own alone.
func orElsewhere(proxies []api.Proxy, others bool) []api.Proxy {
	for i := range proxies {
		if p := &proxies[i]; others && p.State == string(serve.Gone) {
			p.Reason += "; another replica may have it"
		}
	}
	return proxies
}

func (r *replica) sources() []string {
	all := append([]string{}, r.Paths...)
	if r.Kubeconfig != "" {
		all = append(all, "kubernetes:"+r.Kubeconfig)
	}
	if r.Consul != "" {
		all = append(all, "consul:"+r.Consul)
	}
	for _, e := range r.Etcd {
		all = append(all, "etcd:"+e)
	}
	return all
}

// Graph implements api.Observer.
func (r *replica) Graph(context.Context, time.Duration) (api.Graph, error) {
	return api.Graph{}, errNothing
}

// Down implements api.Lifecycle.
func (r *replica) Down(context.Context) error { r.down(); return nil }

// Control implements api.Lifecycle.
func (r *replica) Control(context.Context, string) error {
	return &api.InvalidError{Message: "this process is the control plane itself", Hint: "weft down ends it"}
}

// Join implements api.Joiner.
func (r *replica) Join(_ context.Context, req api.JoinRequest) (api.JoinReply, error) {
	id := identity.ID{TrustDomain: r.Settings.TrustDomain, Namespace: req.Namespace, ServiceAccount: req.ServiceAccount}
	token, err := r.control.Tokens().Mint(identity.Peer{ID: id, Workload: req.Workload, Instance: req.Name, App: req.Labels["app"], Version: req.Labels["version"]})
	if err != nil {
		return api.JoinReply{}, &api.InvalidError{Message: err.Error()}
	}
	role := wire.Sidecar
	if req.Gateway {
		role = wire.Gateway
	}
	at := req.Control
	if at == "" && r.control.Addr() != nil {
		at = r.control.Addr().String()
	}
	b := wire.Bootstrap{
		Node: wire.Node{Role: role, Name: req.Name, Namespace: req.Namespace, ServiceAccount: req.ServiceAccount, Workload: req.Workload,
			IP: req.IP, Labels: req.Labels},
		Control: at, TrustDomain: r.Settings.TrustDomain, Roots: string(r.control.Authority().RootsPEM()), Token: token, StateDir: req.StateDir,
		Outbound: req.Outbound, Inbound: req.Inbound, ForwardProxy: req.ForwardProxy, Admin: req.Admin, AccessLog: "stdout",
		DrainSeconds: wire.DefaultDrainSeconds,
	}
	if req.DrainSeconds != nil {
		b.DrainSeconds = *req.DrainSeconds
	}
	if err := b.Check(); err != nil {
		return api.JoinReply{}, &api.InvalidError{Message: "the proxy could not start with this: " + err.Error()}
	}
	text, err := json.MarshalIndent(b, "", "  ")
	return api.JoinReply{Bootstrap: text, Notes: r.joinNotes(req)}, err
}

// joinNotes say that a gateway needs more than its bootstrap file, as long as there is no more.
func (r *replica) joinNotes(req api.JoinRequest) []string {
	mesh := r.control.Mesh()
	if !req.Gateway || mesh != nil && mesh.Workloads.Get(req.Namespace+"/"+req.Name) != nil {
		return nil
	}
	labels, err := json.Marshal(req.Labels)
	if err != nil || len(req.Labels) == 0 {
		labels = []byte("LABELS")
	}
	return []string{fmt.Sprintf("a gateway gets listeners by the labels of a WorkloadEntry of its name, which there is not yet: those of its bootstrap file are not believed, "+
		"since they decide about keys. For example:\n\n"+
		"apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: %s, namespace: %s}\nspec: {address: %s, serviceAccount: %s, labels: %s}",
		req.Name, req.Namespace, cmp.Or(req.IP, "ADDRESS"), req.ServiceAccount, labels)}
}

var errNothing = &api.InvalidError{Message: "this is a control plane by itself: it runs no workloads and reads no metrics of proxies",
	Hint: "ask the programs themselves; the proxies' metrics are at their admin address"}

// noWorkloads answers for the parts of the API that speak of workloads.
type noWorkloads struct{}

func (noWorkloads) AddProgram(context.Context, api.Program) error       { return errNothing }
func (noWorkloads) RemoveProgram(context.Context, string, string) error { return errNothing }
func (noWorkloads) Restart(context.Context, string, string) error       { return errNothing }
func (noWorkloads) Logs(context.Context, api.LogQuery, func(api.LogLine) error) error {
	return errNothing
}

func (noWorkloads) Upgrade(context.Context, string, string) ([]api.Upgraded, error) {
	return nil, errNothing
}

func (noWorkloads) Exec(context.Context, api.ExecRequest, io.Reader, io.Writer, io.Writer) (int, error) {
	return 0, errNothing
}

// Addresses of gateways are what their Services say.
func (r *replica) Addresses() []string { return nil }
