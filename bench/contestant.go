package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"

	"github.com/weftmesh/weft/bench/load"
)

// topology is how a proxy stands between client and backend.
type topology string

// The topologies.
const (
	plain topology = "plain" // client, proxy, backend: HTTP in plaintext
	tcp   topology = "tcp"   // the same with a proxy that does not look at the bytes
	pair  topology = "pair"  // client, A, mutual TLS 1.3, B, backend
	two   topology = "two"   // plain with HTTP/2 without TLS on both sides
	calls topology = "calls" // two for gRPC
)

// contestant is a proxy in one of its roles.
type contestant struct {
	name    string
	program string // that must be in PATH; empty when we build it
	// start runs it. A topology that it does not do is not in the map.
	start map[topology]func(ctx context.Context, s *site) (*deployment, error)
	build bool // another build of weft-proxy, which no scenario names
}

// deployment is a contestant that runs.
type deployment struct {
	entry   string // plaintext, "ip:port"
	proxies []*process
	// door is the second proxy of a pair, for mutual TLS with clients of ours.
	door    string
	doorTLS *tls.Config
	// admin and doorAdmin are where the first and the second proxy have pprof ("ip:port"); empty for none.
	admin, doorAdmin string
}

// stop ends the proxies.
func (d *deployment) stop() error {
	var errs []error
	for _, p := range d.proxies {
		errs = append(errs, p.stop())
	}
	return errors.Join(errs...)
}

// The names by which scenarios and goals know contestants.
const (
	weftOut    = "weft-proxy"
	weftIn     = "weft-proxy, inbound"
	haproxyWeb = "haproxy"
	haproxyTCP = "haproxy, tcp mode"
	nginxWeb   = "nginx"
	goProxy    = "net/http ReverseProxy"
	envoyProxy = "envoy"
	direct     = "no proxy"
)

// contestants are all there are, in the order of the tables.
func contestants() []contestant {
	type starts = map[topology]func(context.Context, *site) (*deployment, error)
	return []contestant{
		{name: weftOut, program: "", start: starts{plain: weftOutbound, tcp: weftRelay, pair: weftPair, two: weftTwo, calls: weftCalls}},
		{name: weftIn, program: "", start: starts{plain: weftInbound}},
		{name: haproxyWeb, program: "haproxy", start: starts{plain: haproxyHTTP, pair: haproxyPair, two: haproxyTwo, calls: haproxyTwo}},
		{name: nginxWeb, program: "nginx", start: starts{plain: nginxHTTP, pair: nginxPair, two: nginxTwo}},
		{name: haproxyTCP, program: "haproxy", start: starts{plain: haproxyRelay, tcp: haproxyRelay, pair: haproxyRelays}},
		{name: goProxy, program: "", start: starts{plain: goHTTP, pair: goPair}},
		{name: envoyProxy, program: "envoy", start: starts{plain: envoyHTTP, tcp: envoyRelay, pair: envoyPair}},
		{name: direct, program: "", start: starts{pair: noProxy}},
	}
}

// otherBuild is weft-proxy as another program file has it. It takes part wherever the one that was built does.
func otherBuild(name, file string) contestant {
	c := contestant{name: name, start: map[topology]func(context.Context, *site) (*deployment, error){}, build: true}
	for t, start := range contestants()[0].start {
		c.start[t] = func(ctx context.Context, s *site) (*deployment, error) {
			defer func(own string) { s.weft = own }(s.weft)
			s.weft = file
			return start(ctx, s)
		}
	}
	return c
}

// noProxy is the baseline for latency: the client reaches the backend itself.
func noProxy(_ context.Context, s *site) (*deployment, error) {
	return &deployment{entry: s.backend}, nil
}

// launch starts a contestant, whose program is there, and makes sure that it does what it shall.
func (c contestant) launch(ctx context.Context, s *site, t topology) (*deployment, error) {
	d, err := c.start[t](ctx, s)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.name, err)
	}
	switch t {
	case two:
		err = d.checkTwo(ctx, s, smallPath)
	case calls:
		err = d.checkTwo(ctx, s, callPath)
	default:
		err = d.check(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", c.name, err), d.stop())
	}
	return d, nil
}

// checkTwo sends a request over HTTP/2.
func (d *deployment) checkTwo(ctx context.Context, s *site, path string) error {
	res, err := s.h2load(ctx, target(d.entry, path), 0)
	if err == nil && res.Requests != 1 {
		err = errors.New("was not answered with success")
	}
	if err != nil {
		return fmt.Errorf("first request: %w", err)
	}
	return nil
}

// check sends a request through each door.
func (d *deployment) check(ctx context.Context) error {
	doors := []load.Target{target(d.entry, smallPath)}
	if d.door != "" {
		behind := target(d.door, smallPath)
		behind.TLS = d.doorTLS
		doors = append(doors, behind)
	}
	for _, to := range doors {
		n, err := to.Get(ctx)
		if err != nil {
			return fmt.Errorf("first request: %w", err)
		}
		if n != smallSize {
			return fmt.Errorf("first request: answer has %d bytes, not %d", n, smallSize)
		}
	}
	return nil
}
