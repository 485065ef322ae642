package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"text/template"
	"time"

	"github.com/weftmesh/weft/internal/ca"
	"github.com/weftmesh/weft/internal/control"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
	"github.com/weftmesh/weft/internal/identity"
	"github.com/weftmesh/weft/internal/wire"
)

// mesh is a real control plane, in this process, with the objects that a runtime would report for the workloads of the benchmark.
type mesh struct {
	// Set once.
	plane *control.Control
	cut   context.CancelFunc
	ended chan error
	log   *os.File
	// Where the workloads that have a sidecar are reached.
	server, open netip.AddrPort
	backend      netip.AddrPort
	second       netip.AddrPort // the backend for HTTP/2
}

const (
	trustDomain = "cluster.local"
	namespace   = "bench"
	appPort     = 8080 // that policies name
)

// workload is a pod of the benchmark. Each has a service account of its name.
type workload struct {
	Name    string
	IP      netip.Addr
	Sidecar bool
}

// service has one endpoint.
type service struct {
	Name, PortName string
	Port           uint16
	Pod            string
	At             netip.AddrPort
}

// startMesh starts the control plane and waits until it serves the benchmark's objects.
func startMesh(ctx context.Context, dir, backend, second string) (_ *mesh, err error) {
	m := &mesh{ended: make(chan error, 1)}
	if m.backend, err = netip.ParseAddrPort(backend); err != nil {
		return nil, err
	}
	if m.second, err = netip.ParseAddrPort(second); err != nil {
		return nil, err
	}
	for i, at := range []*netip.AddrPort{&m.server, &m.open} {
		port, err := freeAddress()
		if err != nil {
			return nil, err
		}
		*at = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 77, 0, byte(2 + i)}), netip.MustParseAddrPort(port).Port())
	}
	if m.log, err = os.Create(filepath.Join(dir, "control.log")); err != nil {
		return nil, err
	}
	m.plane, err = control.New(control.Options{
		StateDir: filepath.Join(dir, "control"), LocalRuntime: true, Settings: model.Settings{TrustDomain: trustDomain},
		Address: "127.0.0.1:0", HTTPAddress: "-", Log: slog.New(slog.NewTextHandler(m.log, nil)),
	})
	if err != nil {
		return nil, errors.Join(err, m.log.Close())
	}
	var running context.Context
	running, m.cut = context.WithCancel(context.Background())
	go func() { m.ended <- m.plane.Run(running) }() // stop ends it
	if err := m.configure(ctx); err != nil {
		return nil, errors.Join(err, m.stop())
	}
	return m, nil
}

// stop ends the control plane.
func (m *mesh) stop() error {
	m.cut()
	return errors.Join(<-m.ended, m.log.Close())
}

func (m *mesh) configure(ctx context.Context) error {
	if err := m.report(0); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	changes := m.plane.Changes(ctx)
	for m.plane.Mesh() == nil {
		select {
		case <-changes:
		case <-ctx.Done():
			return fmt.Errorf("control plane has no mesh: %w", ctx.Err())
		}
	}
	objects, findings := source.Decode(source.LayerApplied, "policies.yaml", []byte(policies))
	if len(findings) > 0 {
		return fmt.Errorf("policies: %v", findings)
	}
	if _, _, err := m.plane.Apply(ctx, objects); err != nil {
		return err
	}
	for _, f := range m.plane.Findings() {
		if f.Severity == model.Error {
			return fmt.Errorf("control plane: %s", f)
		}
	}
	return nil
}

// report tells the control plane what runs, with so many further services that nobody calls.
func (m *mesh) report(idle int) error {
	pods := []workload{
		{"client", netip.MustParseAddr("127.77.0.1"), true},
		{"server", m.server.Addr(), true},
		{"open", m.open.Addr(), true},
		{"backend", m.backend.Addr(), false},
	}
	services := []service{
		{"plain", "http", 80, "backend", m.backend},
		{"relay", "tcp", 9000, "backend", m.backend},
		{"secure", "http", 80, "server", m.server},
		{"open", "http", 80, "open", m.open},
		{"extra", "http", 80, "backend", m.backend},
		{"two", "http2", 80, "backend", m.second},
		{"calls", "grpc", 80, "backend", m.second},
	}
	for i := range idle {
		services = append(services, service{"idle-" + strconv.Itoa(i), "http", 80, "backend", m.backend})
	}
	var text bytes.Buffer
	if err := manifest.Execute(&text, map[string]any{"Namespace": namespace, "AppPort": appPort, "Pods": pods, "Services": services}); err != nil {
		return err
	}
	objects, findings := source.Decode(source.LayerRuntime, "runtime", text.Bytes())
	if source.HasErrors(findings) {
		return fmt.Errorf("objects of the runtime: %v", findings)
	}
	kube := make([]source.Kube, len(objects))
	for i, o := range objects {
		kube[i] = o.Kube
	}
	return m.plane.SetRuntimeObjects(kube)
}

func (m *mesh) peer(name, instance string) identity.Peer {
	return identity.Peer{
		ID:       identity.ID{TrustDomain: trustDomain, Namespace: namespace, ServiceAccount: name},
		Workload: name, Instance: instance, App: name, Version: "v1", Service: name, Revision: "v1", Cluster: "weft",
	}
}

// bootstrap is what the local runtime would give to the sidecar of a workload.
func (m *mesh) bootstrap(name string, ip netip.Addr, stateDir, admin string) (*wire.Bootstrap, error) {
	token, err := m.plane.Tokens().Mint(m.peer(name, name+"-1"))
	if err != nil {
		return nil, err
	}
	return &wire.Bootstrap{
		Node: wire.Node{
			Role: wire.Sidecar, Name: name + "-1", Namespace: namespace, ServiceAccount: name, Workload: name, IP: ip.String(),
			Labels: map[string]string{"app": name, "version": "v1"}, Cluster: "weft",
		},
		Control: m.plane.Addr().String(), TrustDomain: trustDomain, Roots: string(m.plane.Authority().RootsPEM()), Token: token,
		StateDir: stateDir, Admin: admin, DrainSeconds: 1,
	}, nil
}

// clientTLS is what the sidecar of the workload "client" would connect to a server with.
func (m *mesh) clientTLS() (*tls.Config, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, err
	}
	request := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	issued, err := m.plane.Authority().Sign(request, m.peer("client", "client-1"), 0, ca.ProofOwn)
	if err != nil {
		return nil, err
	}
	material, err := identity.NewMaterial(issued.Chain, key, issued.Bundle, time.Now())
	if err != nil {
		return nil, err
	}
	var own identity.Source
	own.Publish(material)
	server := identity.ExactIDs(m.peer("server", "").ID)
	return own.ClientTLS(server, identity.TLSOptions{NextProtos: []string{wire.ALPNHTTP1}}), nil
}

// local gives the address of a port of the loopback.
func local(ip netip.Addr, port uint16) string {
	return net.JoinHostPort(ip.String(), strconv.Itoa(int(port)))
}

// policies are on in all scenarios: what the client may do, and mutual TLS where the scenario has it.
const policies = `
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict, namespace: bench}
spec:
  selector: {matchLabels: {app: server}}
  mtls: {mode: STRICT}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: server, namespace: bench}
spec:
  selector: {matchLabels: {app: server}}
  action: ALLOW
  rules:
  - from: [{source: {principals: [cluster.local/ns/bench/sa/client]}}]
    to: [{operation: {methods: [GET, HEAD], paths: [/, /bulk]}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: open, namespace: bench}
spec:
  selector: {matchLabels: {app: open}}
  action: ALLOW
  rules:
  - from: [{source: {ipBlocks: [127.0.0.0/8]}}]
    to: [{operation: {methods: [GET, HEAD], paths: [/, /bulk]}}]
`

// manifest shows the workloads as a cluster would.
var manifest = template.Must(template.New("runtime").Parse(`
{{- range .Pods}}---
apiVersion: v1
kind: Pod
metadata:
  name: {{.Name}}-1
  namespace: {{$.Namespace}}
  labels: {app: {{.Name}}, version: v1{{if .Sidecar}}, security.istio.io/tlsMode: istio{{end}}}
  ownerReferences: [{apiVersion: apps/v1, kind: Deployment, name: {{.Name}}, uid: {{.Name}}, controller: true}]
spec:
  serviceAccountName: {{.Name}}
  containers: [{name: app, image: app, ports: [{containerPort: {{$.AppPort}}}]}]
status:
  phase: Running
  podIP: {{.IP}}
  podIPs: [{ip: {{.IP}}}]
  conditions: [{type: Ready, status: "True"}]
{{end}}{{range $i, $s := .Services}}---
apiVersion: v1
kind: Service
metadata: {name: {{.Name}}, namespace: {{$.Namespace}}}
spec:
  selector: {app: {{.Pod}}}
  ports: [{name: {{.PortName}}, port: {{.Port}}, targetPort: {{$.AppPort}}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: {{.Name}}-1, namespace: {{$.Namespace}}, labels: {kubernetes.io/service-name: {{.Name}}}}
addressType: IPv4
ports: [{name: {{.PortName}}, port: {{.At.Port}}, protocol: TCP}]
endpoints:
- addresses: [{{.At.Addr}}]
  conditions: {ready: true, serving: true}
  targetRef: {kind: Pod, namespace: {{$.Namespace}}, name: {{.Pod}}-1}
{{end}}`))

// awaitServices waits until the control plane serves a mesh with that many further services.
func (m *mesh) awaitServices(ctx context.Context, idle int) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	changes := m.plane.Changes(ctx)
	for m.plane.Mesh().Services.Len() < idle {
		select {
		case <-changes:
		case <-ctx.Done():
			return fmt.Errorf("control plane has %d services, not %d: %w", m.plane.Mesh().Services.Len(), idle, ctx.Err())
		}
	}
	return nil
}
