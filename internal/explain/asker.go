package explain

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/weftmesh/weft/internal/control/generate"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/identity"
	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/decode"
	"github.com/weftmesh/weft/internal/proxy/message"
	"github.com/weftmesh/weft/internal/wire"
)

// Asker answers many questions about one mesh: what proxies would get is made and decoded once. It is not safe for concurrent use.
type Asker struct {
	// Virtual is View.Virtual, set before the first question.
	Virtual bool
	// Ejected is View.Ejected of a client's proxy, set before the first question; nil where no proxy can be asked.
	Ejected func(client *model.Workload) map[Ejected]string

	mesh       *model.Mesh
	index      generate.Index
	proxies    map[*model.Workload]*Proxy
	generators map[*model.Workload]*generate.Generator
	decoded    map[[4]string]resource    // by role, class, type and name
	servers    map[*conf.Endpoint]*Proxy // nil for those without one
}

// Over prepares a mesh, which must not change afterwards.
func Over(mesh *model.Mesh) *Asker {
	return &Asker{mesh: mesh, index: generate.NewIndex(mesh), proxies: map[*model.Workload]*Proxy{},
		generators: map[*model.Workload]*generate.Generator{}, decoded: map[[4]string]resource{},
		servers: map[*conf.Endpoint]*Proxy{}}
}

// Ask explains a request. The error says what is wrong with the question; everything else is in the report.
func (a *Asker) Ask(req Request) (*Report, error) {
	client, err := FindClient(a.mesh, req.From)
	if err != nil {
		return nil, err
	}
	return a.From(client, req)
}

// From is Ask for a workload that is known; Request.From does not count.
func (a *Asker) From(client *model.Workload, req Request) (*Report, error) {
	if client.Bare {
		return bare(client, req)
	}
	service := func(host string) *model.Service { return a.service(client.Namespace, host) }
	proxy := *a.Proxy(client)
	var out func() map[Ejected]string
	if a.Ejected != nil {
		out = func() map[Ejected]string { return a.Ejected(client) }
	}
	return Explain(View{Client: proxy, Ejected: out, Server: a.server, RegistryOnly: a.mesh.Settings.RegistryOnly, Service: service,
		Hidden: a.generators[client].Hidden, Unruled: a.generators[client].Unruled, Virtual: a.Virtual}, req)
}

// bare is the answer for a client that has no proxy.
func bare(w *model.Workload, req Request) (*Report, error) {
	t, err := parse(req)
	if err != nil {
		return nil, err
	}
	req.Method = t.request.Method
	return &Report{Request: req, From: Party{Workload: cmp.Or(w.Owner, w.Name), Instance: w.Name, Namespace: w.Namespace}, Outcome: "pass through",
		Summary: "the client has no sidecar: what it sends goes past the mesh, in plaintext, without identity and by no route of the mesh's"}, nil
}

// service finds a host as clients of a namespace write it.
func (a *Asker) service(namespace, host string) *model.Service {
	suffix := ".svc." + a.mesh.Settings.ClusterDomain
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	for _, full := range []string{host, host + "." + namespace + suffix, host + suffix, host + "." + a.mesh.Settings.ClusterDomain} {
		if s := a.mesh.Services.Get(full); s != nil {
			return s
		}
	}
	return nil
}

// server gives the proxy in front of an endpoint.
func (a *Asker) server(e *conf.Endpoint) (Proxy, bool) {
	p, known := a.servers[e]
	if !known {
		if w := workloadOf(a.mesh, e); w != nil && (e.TLSMode != "" || isMesh(a.mesh, w, e)) {
			p = a.Proxy(w)
		}
		a.servers[e] = p
	}
	if p == nil {
		return Proxy{}, false
	}
	return *p, true
}

// Proxy gives the proxy of a workload.
func (a *Asker) Proxy(w *model.Workload) *Proxy {
	if p := a.proxies[w]; p != nil {
		return p
	}
	role := wire.Sidecar
	if w.Gateway {
		role = wire.Gateway
	}
	g := a.index.For(generate.Node{Role: role, Name: w.Name, Namespace: w.Namespace, ServiceAccount: w.ServiceAccount, Labels: w.Labels,
		Locality: w.Locality, ProxyProtocol: w.ProxyProtocol, Ports: w.Ports, Targets: w.Targets})
	p := &Proxy{
		Role: role, Name: w.Name, Workload: cmp.Or(w.Owner, w.Name), Namespace: w.Namespace, ServiceAccount: w.ServiceAccount,
		Address:   w.Address(),
		Targets:   w.Targets,
		Identity:  identity.ID{TrustDomain: a.mesh.Settings.TrustDomain, Namespace: w.Namespace, ServiceAccount: w.ServiceAccount},
		Resources: g.Resource, Port: func(e *conf.Endpoint, c *conf.Cluster) uint16 { return inboundPort(w, e, c) },
		decoded: func(typeURL, name string) resource { return a.read(g, w, typeURL, name) },
		sum:     func() string { s := a.read(g, w, decode.ListenerType, wire.InboundListener).sum; return string(s[:]) },
	}
	a.proxies[w], a.generators[w] = p, g
	return p
}

// Sum tells versions of a workload's resource apart: equal ones have equal sums; it is zero where there is none.
func (a *Asker) Sum(w *model.Workload, typeURL, name string) [sha256.Size]byte {
	a.Proxy(w)
	return a.read(a.generators[w], w, typeURL, name).sum
}

// Message gives a workload's resource as its proxy would get it.
func (a *Asker) Message(w *model.Workload, typeURL, name string) (proto.Message, bool) {
	return a.Proxy(w).Resources(typeURL, name)
}

// read decodes a resource, once for all nodes that get the same.
func (a *Asker) read(g *generate.Generator, w *model.Workload, typeURL, name string) resource {
	class := g.Class(typeURL, name)
	if class == "" {
		class = "node " + w.Namespace + "/" + w.Name
	}
	key := [4]string{fmt.Sprint(w.Gateway), class, typeURL, name}
	r, known := a.decoded[key]
	if !known {
		var raw []byte
		r = read(func(typeURL, name string) (proto.Message, bool) {
			m, ok := g.Resource(typeURL, name)
			if ok {
				raw, _ = proto.MarshalOptions{Deterministic: true}.Marshal(m) // what cannot be written is refused by read
			}
			return m, ok
		}, typeURL, name)
		if raw != nil {
			r.sum = sha256.Sum256(raw)
		}
		a.decoded[key] = r
	}
	return r
}

// Class gives a key: workloads of one namespace with equal keys send requests in the same way, as far as they may.
func (a *Asker) Class(w *model.Workload) string {
	a.Proxy(w)
	if w.Gateway {
		return "gateway " + w.Namespace + "/" + cmp.Or(w.Owner, w.Name)
	}
	return "sidecar " + strings.TrimPrefix(a.generators[w].Class(generate.ListenerType, "any"), string(wire.Sidecar)+"|"+w.Namespace)
}

// Listeners names what a gateway binds.
func (a *Asker) Listeners(w *model.Workload) []string {
	a.Proxy(w)
	return a.generators[w].Names(generate.ListenerType)
}

// Listener gives a listener of a workload's proxy and the route tables of its chains; nil when there is none.
func (a *Asker) Listener(w *model.Workload, name string) (*conf.Listener, []*conf.RouteTable, error) {
	p := a.Proxy(w)
	ln, found, err := get[*conf.Listener](p, decode.ListenerType, name)
	if !found {
		return nil, nil, err
	}
	var tables []*conf.RouteTable
	for _, ch := range append(slices.Clip(ln.Chains), ln.Default) {
		if ch == nil || ch.HTTP == nil {
			continue
		}
		t := ch.HTTP.Routes
		if t == nil {
			if t, _, err = get[*conf.RouteTable](p, decode.RoutesType, ch.HTTP.RouteName); err != nil {
				return ln, tables, err
			}
		}
		if t != nil {
			tables = append(tables, t)
		}
	}
	return ln, tables, nil
}

// Direct says what a workload's own proxy makes of a request that reaches it in plaintext from outside the mesh.
func (a *Asker) Direct(w *model.Workload, port uint16, req Request) (*Inbound, error) {
	t, err := parse(req)
	if err != nil {
		return nil, err
	}
	e := &evaluation{talk: t, report: &Report{Protocol: t.scheme}}
	e.view.Client.Address = netip.AddrFrom4([4]byte{203, 0, 113, 1}) // of a block for documents (RFC 5737)
	server := a.Proxy(w)
	ep := &conf.Endpoint{Port: port}
	if server.Address.IsValid() {
		ep.Addr = netip.AddrPortFrom(server.Address, port)
	}
	return e.inbound(server, &conf.Cluster{}, ep, nil, false), nil
}

// sent describes the request as it leaves.
func sent(r *message.Request) *Sent {
	s := &Sent{Path: r.Path, Authority: r.Authority}
	for i := range r.Header.Len() {
		f := r.Header.At(i)
		s.Headers = append(s.Headers, Field{Name: strings.ToLower(f.Name), Value: f.Value})
	}
	return s
}
