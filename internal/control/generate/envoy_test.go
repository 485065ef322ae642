package generate

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/weftmesh/weft/internal/control/generate/generatetest"
	"github.com/weftmesh/weft/internal/control/generate/message"
	"github.com/weftmesh/weft/internal/control/generate/view"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/test/envoy"
)

// TestEnvoyTakesAll gives everything that each golden mesh makes of it, for a sidecar and for a gateway, to a real Envoy: listeners with
// their route tables, clusters with their endpoints. It has to take all.
func TestEnvoyTakesAll(t *testing.T) {
	program := envoy.Find(t)
	for _, c := range goldens {
		mesh := testMesh()
		if c.mesh != nil {
			c.mesh(mesh)
		}
		realKeys(t, mesh)
		if l := mesh.Settings.Log; l != nil && l.File != "" {
			l.File = filepath.Join(t.TempDir(), "access.log") // it opens the file
		}
		for _, node := range []view.Node{envoyNode(), ingress()} {
			node.Classic, node.SecretsDir = true, ""
			t.Run(c.name+"/"+string(node.Role), func(t *testing.T) {
				t.Parallel()
				file := filepath.Join(t.TempDir(), "envoy.json")
				text, err := protojson.Marshal(everything(t, New(mesh, node)))
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, text, 0o600); err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if out, err := exec.CommandContext(ctx, program, "--mode", "validate", "-l", "warning", "--concurrency", "1", "-c", file).CombinedOutput(); err != nil {
					t.Errorf("%v\n%s", err, out)
				}
			})
		}
	}
}

// everything is a bootstrap with all resources of a node as static ones.
func everything(t *testing.T, g *Generator) *bootstrapv3.Bootstrap {
	t.Helper()
	control := &clusterv3.Cluster{Name: "xds-grpc", ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		LoadAssignment: &endpointv3.ClusterLoadAssignment{ClusterName: "xds-grpc"}}
	secrets := proto.CloneOf(control)
	secrets.Name, secrets.LoadAssignment.ClusterName = "sds-grpc", "sds-grpc"
	b := &bootstrapv3.Bootstrap{
		Node: &corev3.Node{Id: "test", Cluster: "test"},
		DynamicResources: &bootstrapv3.Bootstrap_DynamicResources{AdsConfig: &corev3.ApiConfigSource{
			ApiType: corev3.ApiConfigSource_GRPC, TransportApiVersion: corev3.ApiVersion_V3,
			GrpcServices: []*corev3.GrpcService{{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
				EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: "xds-grpc"}}}}}},
		StaticResources: &bootstrapv3.Bootstrap_StaticResources{Clusters: []*clusterv3.Cluster{control, secrets}},
	}
	for _, n := range g.Names(ClusterType) {
		m, ok := g.Resource(ClusterType, n)
		if !ok {
			t.Errorf("no cluster %s", n)
			continue
		}
		generatetest.Validate(t, n, m)
		c, _ := m.(*clusterv3.Cluster)
		if c.GetType() == clusterv3.Cluster_EDS {
			e, ok := g.Resource(EndpointsType, c.GetEdsClusterConfig().GetServiceName())
			if !ok {
				t.Errorf("no endpoints %s of %s", c.GetEdsClusterConfig().GetServiceName(), n)
				continue
			}
			generatetest.Validate(t, n, e)
			c.ClusterDiscoveryType, c.EdsClusterConfig = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}, nil
			c.LoadAssignment, _ = e.(*endpointv3.ClusterLoadAssignment)
			c.LoadAssignment.ClusterName = n
		}
		b.StaticResources.Clusters = append(b.StaticResources.Clusters, c)
	}
	for _, n := range g.Names(ListenerType) {
		m, ok := g.Resource(ListenerType, n)
		if !ok {
			continue // a port whose services have no chain there
		}
		generatetest.Validate(t, n, m)
		l, _ := m.(*listenerv3.Listener)
		inlineRoutes(t, g, l)
		b.StaticResources.Listeners = append(b.StaticResources.Listeners, l)
	}
	return b
}

// inlineRoutes puts route tables into the listeners that ask for them.
func inlineRoutes(t *testing.T, g *Generator, l *listenerv3.Listener) {
	t.Helper()
	for _, c := range l.FilterChains {
		for _, f := range c.Filters {
			h := &hcmv3.HttpConnectionManager{}
			if f.GetTypedConfig().UnmarshalTo(h) != nil || h.GetRds() == nil {
				continue
			}
			m, ok := g.Resource(RouteType, h.GetRds().GetRouteConfigName())
			if !ok {
				t.Errorf("listener %s: no route table %s", l.Name, h.GetRds().GetRouteConfigName())
				continue
			}
			generatetest.Validate(t, h.GetRds().GetRouteConfigName(), m)
			table, _ := m.(*routev3.RouteConfiguration)
			h.RouteSpecifier = &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: table}
			f.ConfigType = message.NetworkFilter(f.Name, h).ConfigType
		}
	}
}

// realKeys replaces the words that stand for certificates in golden files.
func realKeys(t *testing.T, m *model.Mesh) {
	t.Helper()
	certificate, key := selfSigned(t)
	for _, g := range m.Gateways {
		for i := range g.Servers {
			if s := g.Servers[i].TLS; s != nil && len(s.Certificate) > 0 {
				s.Certificate, s.Key, s.CRL = certificate, key, nil
				if len(s.CA) > 0 {
					s.CA = certificate
				}
			}
		}
	}
}

// selfSigned makes a certificate and its key.
func selfSigned(t *testing.T) (certificate, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	about := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"*.example"}, NotAfter: time.Now().Add(time.Hour)}
	raw, err := x509.CreateCertificate(rand.Reader, about, about, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}
