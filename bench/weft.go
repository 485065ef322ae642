package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/weftmesh/weft/internal/wire"
)

// wiring says in the report how weft-proxy runs.
const wiring = "weft-proxy runs as in a mesh without network namespaces: a real control plane (in the driver's process) with its certificate authority, " +
	"one sidecar per workload with explicit ports, certificates of its own; metrics with all labels, tracing headers and (inbound) an authorization policy on, access log off"

// sidecar is a weft-proxy of a workload.
type sidecar struct {
	*process
	admin string
}

// startWeft runs a workload's sidecar and waits until it is ready. The ports are those of the bootstrap.
func (s *site) startWeft(ctx context.Context, name string, ip netip.Addr, ports func(*wire.Bootstrap)) (*sidecar, error) {
	admin, err := freeAddress()
	if err != nil {
		return nil, err
	}
	s.started++
	b, err := s.mesh.bootstrap(name, ip, filepath.Join(s.dir, fmt.Sprintf("state-%d", s.started)), admin)
	if err != nil {
		return nil, err
	}
	ports(b)
	text, err := json.Marshal(b)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(s.dir, fmt.Sprintf("bootstrap-%d.json", s.started))
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return nil, err
	}
	p, err := s.start(s.proxyCPU, "weft-proxy of "+name, s.weft, "--bootstrap", path)
	if err != nil {
		return nil, err
	}
	return &sidecar{p, admin}, p.until(ctx, func() error { return ready(ctx, admin) })
}

func ready(ctx context.Context, admin string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+"/ready", nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	why, err := io.ReadAll(res.Body)
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("not ready: %s", why)
	}
	return err
}

// clientIP is the address of the workload that calls.
var clientIP = netip.MustParseAddr("127.77.0.1")

// calling starts the sidecar of the client with one outbound port for each of the services ("name:port").
func (s *site) calling(ctx context.Context, services ...wire.PortMap) (*deployment, error) {
	for i := range services {
		address, err := freeAddress()
		if err != nil {
			return nil, err
		}
		services[i].Listen = address
	}
	p, err := s.startWeft(ctx, "client", clientIP, func(b *wire.Bootstrap) { b.OutboundPorts = services })
	if err != nil {
		return nil, err
	}
	return &deployment{entry: services[0].Listen, proxies: []*process{p.process}, admin: p.admin}, nil
}

// to is the outbound port of a service.
func to(name string, port uint16) wire.PortMap {
	return wire.PortMap{Destination: wire.ListenerName(name+"."+namespace+".svc.cluster.local", port)}
}

// called starts the sidecar of a workload with the backend as its application.
func (s *site) called(ctx context.Context, name string, at netip.AddrPort) (*deployment, error) {
	address := local(at.Addr(), at.Port())
	p, err := s.startWeft(ctx, name, at.Addr(), func(b *wire.Bootstrap) {
		b.InboundPorts = []wire.PortMap{{Listen: address, Destination: s.backend, Port: appPort}}
	})
	if err != nil {
		return nil, err
	}
	return &deployment{entry: address, proxies: []*process{p.process}, admin: p.admin}, nil
}

func weftOutbound(ctx context.Context, s *site) (*deployment, error) {
	return s.calling(ctx, to("plain", 80))
}
func weftRelay(ctx context.Context, s *site) (*deployment, error) {
	return s.calling(ctx, to("relay", 9000))
}
func weftTwo(ctx context.Context, s *site) (*deployment, error) {
	return s.calling(ctx, to("two", 80))
}
func weftCalls(ctx context.Context, s *site) (*deployment, error) {
	return s.calling(ctx, to("calls", 80))
}
func weftInbound(ctx context.Context, s *site) (*deployment, error) {
	return s.called(ctx, "open", s.mesh.open)
}

func weftPair(ctx context.Context, s *site) (*deployment, error) {
	b, err := s.called(ctx, "server", s.mesh.server)
	if err != nil {
		return nil, err
	}
	a, err := s.calling(ctx, to("secure", 80))
	if err != nil {
		return nil, errors.Join(err, b.stop())
	}
	d := &deployment{entry: a.entry, proxies: append(a.proxies, b.proxies...), door: b.entry, admin: a.admin, doorAdmin: b.admin}
	if d.doorTLS, err = s.mesh.clientTLS(); err != nil {
		return nil, errors.Join(err, d.stop())
	}
	return d, nil
}

// five are outbound ports of all services of the benchmark.
func five() []wire.PortMap {
	return []wire.PortMap{to("plain", 80), to("relay", 9000), to("secure", 80), to("open", 80), to("extra", 80)}
}
