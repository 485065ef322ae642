package serve

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/weftmesh/weft/internal/control/generate"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/wire"
)

const (
	memoryClients  = 200 // with one certificate
	memoryServices = 20
	// memoryBudget is generous; what was measured is in the log.
	memoryBudget = 32 << 10
)

// TestMemoryOfAStream connects clients of another process, each with a connection of its own with mutual TLS and what 20 services need.
func TestMemoryOfAStream(t *testing.T) {
	p := newPlane(t, Options{})
	services := mesh(func(m *model.Mesh) {
		for i := range memoryServices {
			s := *m.Services.Get(reviewsHost)
			s.Host, s.Name = fmt.Sprintf("s%d.default.svc.cluster.local", i), fmt.Sprintf("s%d", i)
			s.Addresses = []netip.Addr{netip.AddrFrom4([4]byte{10, 79, 0, byte(i)})}
			m.Services.Put(s.Host, &s)
		}
	}, "10.77.0.1")
	p.publish(services)
	_, files := p.bootstrapIn(p.certify("default", "productpage", time.Hour))
	first := p.connect(productpage()) // what the first client costs is nobody's
	subscribeTo(t, first.stream, productpage())
	first.cancel()
	p.await("the first client has left", func() bool { return p.metric("pilot_xds", "") == 0 })
	before := inUse()
	cmd := exec.Command(os.Args[0], "-test.run=^TestMemoryClients$")
	cmd.Env = append(os.Environ(), "WEFT_TEST_CLIENTS="+p.address, "WEFT_TEST_FILES="+files)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { in.Close(); _ = cmd.Wait() }() // it ends with its input
	lines := bufio.NewScanner(out)
	for lines.Scan() && !strings.HasPrefix(lines.Text(), "ready") {
	}
	if got := p.metric("pilot_xds", ""); got != memoryClients {
		t.Fatalf("%v clients are connected", got)
	}
	each := (inUse() - before) / memoryClients
	t.Logf("%d bytes of heap and stacks for each of %d clients", each, memoryClients)
	if each > memoryBudget {
		t.Errorf("%d bytes for each client, more than %d", each, memoryBudget)
	}
}

func inUse() int64 {
	for range 4 { // stacks shrink by half at each
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// TestMemoryClients is the other process.
func TestMemoryClients(t *testing.T) {
	address, dir := os.Getenv("WEFT_TEST_CLIENTS"), os.Getenv("WEFT_TEST_FILES")
	if address == "" {
		t.Skip("it is started by TestMemoryOfAStream")
	}
	certificate, err := tls.LoadX509KeyPair(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	pem, err := os.ReadFile(filepath.Join(dir, "root.pem"))
	if err != nil || !roots.AppendCertsFromPEM(pem) {
		t.Fatal("no roots", err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{certificate}, RootCAs: roots, ServerName: "localhost", NextProtos: []string{"h2"}}
	for i := range memoryClients {
		conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewTLS(config)))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		n := productpage()
		n.Name = "productpage-" + strconv.Itoa(i)
		subscribeTo(t, stream, n)
	}
	fmt.Println("\nready")
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// subscribeTo subscribes to what the services need, and accepts it.
func subscribeTo(t *testing.T, stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient, n wire.Node) {
	node := xdsNode(n)
	for _, typeURL := range []string{generate.ListenerType, generate.RouteType, generate.ClusterType, generate.EndpointsType} {
		r := &discoveryv3.DeltaDiscoveryRequest{Node: node, TypeUrl: typeURL}
		node = nil
		for i := range memoryServices {
			host := fmt.Sprintf("s%d.default.svc.cluster.local", i)
			name := host + ":9080"
			if typeURL == generate.ClusterType || typeURL == generate.EndpointsType {
				name = wire.OutboundCluster(9080, "", host)
			}
			r.ResourceNamesSubscribe = append(r.ResourceNamesSubscribe, name)
		}
		if err := stream.Send(r); err != nil {
			t.Fatal(err)
		}
		got, err := stream.Recv()
		if err != nil || len(got.GetResources()) != memoryServices {
			t.Fatal(len(got.GetResources()), err)
		}
		if err := stream.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURL, ResponseNonce: got.GetNonce()}); err != nil {
			t.Fatal(err)
		}
	}
}
