package replica

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/weftmesh/weft/internal/agent"
	"github.com/weftmesh/weft/internal/api"
	"github.com/weftmesh/weft/internal/control/generate"
	"github.com/weftmesh/weft/internal/control/source/etcd/etcdtest"
	"github.com/weftmesh/weft/internal/wire"
)

// noticed is how long a proxy may stay with a replica that hangs: 16 s, and what a loaded machine adds.
const noticed = 2 * time.Minute

// TestOneHangs stops one of two control planes, whose kernel goes on taking connections. A proxy, and a client behind an agent that never
// pings by itself, come to the other one, and what is applied there meanwhile is in force at the proxy.
func TestOneHangs(t *testing.T) {
	server := etcdtest.Start(t)
	weft := program(t, "weft")
	hung, other := startPlane(t, weft, 0, "--etcd", server.Endpoint), startPlane(t, weft, 1, "--etcd", server.Endpoint)
	one, two := backend(t, "one"), backend(t, "two")
	hung.send(t, one)
	control := hung.address + "," + other.address
	s := startSidecar(t, program(t, "weft-proxy"), hung, control, 0)
	await(t, "the proxy serves", func() bool { return s.call() == "one" })
	if hung.proxies(t) == 0 {
		hung, other = other, hung
	}
	c := connectClient(t, hung, control, 0)
	for n := 1; hung.proxies(t) < 2; n++ { // chance takes some to the other one
		c.stop()
		c = connectClient(t, hung, control, n)
	}
	if err := hung.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	stopped := time.Now()
	other.send(t, two)
	await(t, "the proxy has what was applied at the other replica", func() bool { return s.call() == "two" })
	if err := c.wait(); err == nil {
		t.Error("the client's stream has an answer of a replica that hangs")
	}
	c.open(t)
	took := time.Since(stopped)
	t.Logf("both were at the other replica after %v", took)
	if took > noticed {
		t.Errorf("it took %v", took)
	}
}

// client is one of gRPC, with an agent.
type client struct {
	id     string
	conn   *grpc.ClientConn
	stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	stop   func()
}

func connectClient(t *testing.T, p *plane, control string, n int) *client {
	t.Helper()
	reply, err := p.client.Join(t.Context(), api.JoinRequest{Name: fmt.Sprintf("grpc-%d", n), Namespace: "default", ServiceAccount: "grpc",
		Workload: "grpc", Control: control})
	if err != nil {
		t.Fatal(err)
	}
	var b wire.Bootstrap
	if err := json.Unmarshal(reply.Bootstrap, &b); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	a, err := agent.New(agent.Options{Bootstrap: &b, Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = a.Run(ctx) }) // ends with ctx
	c := &client{id: b.Node.ID()}
	c.conn, err = grpc.NewClient("unix://"+filepath.Join(dir, "xds.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	c.stop = sync.OnceFunc(func() {
		c.conn.Close()
		cancel()
		running.Wait()
	})
	t.Cleanup(c.stop)
	c.open(t)
	return c
}

// open begins a stream, and has an answer.
func (c *client) open(t *testing.T) {
	t.Helper()
	var err error
	c.stream, err = discoveryv3.NewAggregatedDiscoveryServiceClient(c.conn).DeltaAggregatedResources(t.Context(), grpc.WaitForReady(true))
	if err == nil {
		err = c.stream.Send(&discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: c.id, Cluster: "grpc"}, TypeUrl: generate.ClusterType,
			ResourceNamesSubscribe: []string{"*"}})
	}
	if err == nil {
		err = c.wait()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// wait waits for the stream's next answer, or its end.
func (c *client) wait() error {
	_, err := c.stream.Recv()
	return err
}
