// Package explain says what would happen to a request, and why, without sending it. It joins both halves of the mesh offline: the
// compiled objects become messages as for the client's proxy, the messages are decoded and the request is routed by the proxy's own
// code, and the destination's proxy is asked in the same way whether it lets the request in.
package explain

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/identity"
	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/decode"
	"github.com/weftmesh/weft/internal/wire"
)

// Request is the question.
type Request struct {
	// From names the client: a workload (Deployment), instance (pod), service or gateway, optionally as "name.namespace".
	From string `json:"from"`
	// Method is GET when empty.
	Method string `json:"method"`
	// URL as the client would write it: "http://reviews:9080/reviews/0". Its scheme is http, grpc (a call: Method does not count),
	// https (TLS that the client makes itself), udp (datagrams to a gateway), or tcp for anything else.
	URL     string  `json:"url"`
	Headers []Field `json:"headers,omitempty"`
	// ServerName is what a TLS client names at https, where it is not the URL's host (RFC 6066 section 3).
	ServerName string `json:"serverName,omitempty"`
	// Brief leaves out the routes that do not match.
	Brief bool `json:"-"`
}

// Field is a header field.
type Field struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Resources gives the messages that a proxy would get by name; generate.Generator.Resource is one.
type Resources func(typeURL, name string) (proto.Message, bool)

// Proxy is one side of the conversation.
type Proxy struct {
	Role           wire.Role
	Name           string // instance
	Workload       string // owner; the instance's name when there is none
	Namespace      string
	ServiceAccount string
	Identity       identity.ID
	Address        netip.Addr     // invalid when it has none
	Targets        []model.Target // a gateway's
	// Port translates an endpoint's port to the one that the proxy's configuration names; nil for the same.
	Port      func(e *conf.Endpoint, c *conf.Cluster) uint16
	Resources Resources

	decoded func(typeURL, name string) resource // nil to decode anew each time
	sum     func() string                       // of the inbound listener; nil where it is not known
}

// View is all that an explanation needs to know of the mesh.
type View struct {
	Client Proxy
	// Server gives the proxy in front of an endpoint; false where there is none.
	Server func(e *conf.Endpoint) (Proxy, bool)
	// RegistryOnly refuses destinations that the mesh does not know.
	RegistryOnly bool
	// Service gives the service of a host as the client writes it, whether or not the client may know it; nil for none at all.
	Service func(host string) *model.Service
	// Hidden says why one of them does not exist for the client, in words; empty where it does. It is nil where nobody knows.
	Hidden func(s *model.Service) string
	// Unruled says which object names a host that the client does not know at a port, without a rule for it; empty for none. It is nil
	// where nobody knows.
	Unruled func(host string, port uint16) string
	// Virtual says that addresses of services lead nowhere by themselves, as with `weft up`.
	Virtual bool
	// Ejected asks the client's proxy which endpoints its outlier detection keeps out, and why, in words. What it gives is nil where the
	// proxy cannot be asked, as it is where nobody can ask it.
	Ejected func() map[Ejected]string
}

// Ejected is an endpoint that a proxy has ejected from a cluster, by its "address:port".
type Ejected struct{ Cluster, Address string }

// Mesh explains a request in a compiled mesh. The error says what is wrong with the question; everything else is in the report.
func Mesh(mesh *model.Mesh, req Request) (*Report, error) { return Over(mesh).Ask(req) }

// Explain explains a request from messages alone.
func Explain(v View, req Request) (*Report, error) {
	t, err := parse(req)
	if err != nil {
		return nil, err
	}
	e := &evaluation{view: v, talk: t, brief: req.Brief, report: &Report{Request: req, From: v.Client.describe()}}
	if e.report.Request.Method = t.request.Method; t.scheme == "udp" || t.scheme == "tcp" {
		e.report.Request.Method = "" // connections and datagrams have none
	}
	e.outbound()
	e.conclude()
	return e.report, nil
}

// inboundPort finds the port that the workload's own configuration knows an endpoint's port by. They differ only where workloads
// share an address.
func inboundPort(w *model.Workload, e *conf.Endpoint, c *conf.Cluster) uint16 {
	for _, p := range w.Ports {
		if p.Number == e.Port {
			return p.Number
		}
	}
	for _, p := range w.Ports {
		if p.ServiceHost == c.ServiceHost && p.ServicePort == c.Port {
			return p.Number
		}
	}
	return e.Port
}

// workloadOf finds the workload of an endpoint by its instance, or by an address that is nobody else's.
func workloadOf(mesh *model.Mesh, e *conf.Endpoint) *model.Workload {
	if w := mesh.Workloads.Get(e.WorkloadNamespace + "/" + e.Instance); w != nil {
		return w
	}
	var found *model.Workload
	for _, w := range mesh.Workloads.All() {
		if slices.Contains(w.Addresses, e.Addr.Addr()) {
			if found != nil {
				return nil
			}
			found = w
		}
	}
	return found
}

// isMesh reports whether a proxy stands in front of the endpoint, mutual TLS or not.
func isMesh(mesh *model.Mesh, w *model.Workload, e *conf.Endpoint) bool {
	for _, p := range w.Ports {
		for s := range mesh.Services.Get(p.ServiceHost).All() {
			for _, me := range s.Endpoints {
				if me.Mesh && me.Instance == w.Name && me.Namespace == w.Namespace {
					return true
				}
			}
		}
	}
	return false
}

// FindClient looks the name up as an instance, a workload, the label app, and a service, in this order.
func FindClient(mesh *model.Mesh, from string) (*model.Workload, error) {
	if from == "" {
		return nil, fmt.Errorf("from: say which workload the request comes from")
	}
	name, namespace, found := strings.Cut(from, ".")
	if !found {
		name, namespace, found = cutSlash(from)
	}
	ways := []func(*model.Workload) bool{
		func(w *model.Workload) bool { return w.Name == name },
		func(w *model.Workload) bool { return w.Owner == name },
		func(w *model.Workload) bool { return w.Labels["app"] == name },
		func(w *model.Workload) bool {
			return slices.ContainsFunc(w.Ports, func(p model.WorkloadPort) bool {
				s := mesh.Services.Get(p.ServiceHost)
				return s != nil && s.Name == name && s.Namespace == w.Namespace
			})
		},
		func(w *model.Workload) bool { return w.ServiceAccount == name },
	}
	for _, is := range ways {
		var candidates []*model.Workload
		for _, w := range mesh.Workloads.All() {
			if is(w) && (!found || w.Namespace == namespace) {
				candidates = append(candidates, w)
			}
		}
		if len(candidates) > 0 {
			return slices.MinFunc(candidates, preferred), nil
		}
	}
	return nil, fmt.Errorf("from: %w %q; there are %s", ErrNoClient, from, strings.Join(owners(mesh), ", "))
}

// ErrNoClient is the cause of an error about a name that is no client's.
var ErrNoClient = errors.New("there is no workload, service or gateway")

func cutSlash(from string) (name, namespace string, found bool) {
	if ns, n, ok := strings.Cut(from, "/"); ok {
		return n, ns, true
	}
	return from, "", false
}

// preferred orders candidates: ready ones first, the namespace "default" first, then by name.
func preferred(a, b *model.Workload) int {
	rank := func(w *model.Workload) int {
		n := 0
		if !w.Ready {
			n += 2
		}
		if w.Namespace != "default" {
			n++
		}
		return n
	}
	return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

func owners(mesh *model.Mesh) []string {
	var names []string
	for _, w := range mesh.Workloads.All() {
		names = append(names, cmp.Or(w.Owner, w.Name)+"."+w.Namespace)
	}
	if len(names) == 0 {
		return []string{"none at all"}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// resource is one that was decoded. found is false for one that does not exist; err says why the proxy would refuse it.
type resource struct {
	value any
	found bool
	err   error
	sum   [sha256.Size]byte // of the message, where an Asker keeps it
}

// get fetches and decodes a resource, as resource says.
func get[T any](p *Proxy, typeURL, name string) (v T, found bool, err error) {
	var r resource
	if p.decoded != nil {
		r = p.decoded(typeURL, name)
	} else {
		r = read(p.Resources, typeURL, name)
	}
	if !r.found || r.err != nil {
		return v, false, r.err
	}
	v, ok := r.value.(T)
	if !ok {
		return v, false, fmt.Errorf("%s %s: is a %T", typeURL, name, r.value)
	}
	return v, true, nil
}

func read(r Resources, typeURL, name string) resource {
	m, ok := r(typeURL, name)
	if !ok {
		return resource{}
	}
	a, err := anypb.New(m)
	if err != nil {
		return resource{err: err}
	}
	v, err := decode.Resource(a)
	return resource{value: v, found: err == nil, err: err}
}

// hostPort gives host and port of a URL, with the scheme's default port. Errors name it as it was typed.
func hostPort(u *url.URL, typed string) (string, uint16, error) {
	host := u.Hostname()
	if host == "" {
		return "", 0, fmt.Errorf("url %q: has no host", typed)
	}
	p := u.Port()
	if p == "" {
		p = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	if p == "" {
		return "", 0, fmt.Errorf("url %q: says no port", typed)
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil || n == 0 {
		return "", 0, fmt.Errorf("url %q: port %s is not one of 1 to 65535", typed, p)
	}
	return host, uint16(n), nil
}
