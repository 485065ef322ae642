package e2e

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"
)

// echoService is a service of datagrams with two instances, behind a gateway's port.
const echoService = `apiVersion: v1
kind: Service
metadata:
  name: echo
spec:
  selector: {app: echo}
  ports:
  - {name: echo, port: 53, targetPort: 5300, protocol: UDP}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: echo
spec:
  replicas: 2
  selector:
    matchLabels: {app: echo}
  template:
    metadata:
      labels: {app: echo}
    spec:
      containers:
      - name: echo
        command: [program, udp, "5300"]
        ports:
        - {containerPort: 5300, protocol: UDP}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: edge
spec:
  gatewayClassName: weft
  listeners:
  - {name: echo, port: 7777, protocol: UDP}
`

// outsideService is one of this machine, which its address for instances stands for.
const outsideService = `apiVersion: v1
kind: Service
metadata:
  name: outside
spec:
  ports: [{name: echo, port: 7, protocol: UDP}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: outside-1
  labels: {kubernetes.io/service-name: outside}
addressType: IPv4
ports: [{name: echo, port: %d, protocol: UDP}]
endpoints: [{addresses: [%s]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: UDPRoute
metadata:
  name: echo
spec:
  parentRefs: [{name: edge}]
  rules:
  - backendRefs: [{name: outside, port: 7}]
`

const echoRoute = `apiVersion: gateway.networking.k8s.io/v1
kind: UDPRoute
metadata:
  name: echo
spec:
  parentRefs: [{name: edge}]
  rules:
  - backendRefs: [{name: echo, port: 53}]
`

// TestDatagrams leads a service's datagrams through a gateway whose process and instance are replaced meanwhile, to clients of both
// families of addresses.
func TestDatagrams(t *testing.T) {
	t.Parallel()
	for isolation, address := range map[string]string{"netns": "127.0.0.1", "ports": "::1"} {
		t.Run(isolation, func(t *testing.T) {
			t.Parallel()
			m := start(t, settings{account: self(), isolation: isolation, bare: true, publish: "7777=0", flags: []string{"--publish-address", address},
				manifests: map[string]string{"echo.yaml": echoService, "route.yaml": echoRoute}})
			m.eventually(10*time.Second, "the gateway's port is open", func() error {
				if len(m.status().Gateways) != 1 {
					return errors.New("it is not")
				}
				return nil
			})
			at := m.gateway(7777)
			contains(t, "status", m.must("status"), "udp://"+at+" (port 7777)")
			contains(t, "explain", m.must("explain", "--from", "istio-ingressgateway", "udp://"+at), "to echo.default.svc.cluster.local, 2 of 2 endpoints ready", "past the sidecar")
			m.sessions(at)
			load := m.datagrams(at)
			load.await(50)
			m.must("proxy", "upgrade", "istio-system/istio-ingressgateway")
			load.await(50)
			before := m.readyPods("istio-ingressgateway")
			m.must("restart", "-n", "istio-system", "istio-ingressgateway")
			m.eventually(20*time.Second, "the gateway is replaced", func() error {
				if now := m.readyPods("istio-ingressgateway"); len(now) != 1 || now[0].Name == before[0].Name {
					return fmt.Errorf("%+v", now)
				}
				return m.ready("istio-ingressgateway")
			})
			load.await(50)
			load.end("an upgrade and a restart of the gateway")
			if now := m.gateway(7777); now != at {
				t.Errorf("the port was at %s and is at %s", at, now)
			}
			m.outside(at)
			m.portGoes(at)
		})
	}
}

// echo asks over a socket and gives the instance that answers.
func echo(c net.Conn, text string, patience time.Duration) (instance string, err error) {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	if _, err := c.Write([]byte(text)); err != nil {
		return "", err
	}
	buf := make([]byte, 2048)
	n, err := c.Read(buf)
	if err != nil {
		return "", err
	}
	instance, got, _ := strings.Cut(string(buf[:n]), " ")
	if got != text {
		return "", fmt.Errorf("asked %q, got %q", text, buf[:n])
	}
	return instance, nil
}

// sessions checks that a client stays with an instance, and that clients are spread.
func (m *mesh) sessions(at string) {
	m.Helper()
	seen := map[string]int{}
	for i := range 32 {
		c, err := net.Dial("udp", at)
		m.check(err)
		defer c.Close()
		first := ""
		for n := range 3 {
			who, err := echo(c, fmt.Sprintf("client %d, question %d", i, n), busy)
			m.check(err)
			if n > 0 && who != first {
				m.Errorf("client %d is answered by %s and then by %s", i, first, who)
			}
			first = who
		}
		seen[first]++
	}
	if len(seen) != 2 {
		m.Errorf("clients by instance: %v, want two", seen)
	}
}

// datagrams asks without pause from three clients; every question has to be answered.
func (m *mesh) datagrams(at string) *traffic {
	m.Helper()
	t := &traffic{m: m, stop: make(chan struct{})}
	for i := range 3 {
		c, err := net.Dial("udp", at)
		m.check(err)
		t.workers.Go(func() { // ends by halt
			defer c.Close()
			for n := 0; ; n++ {
				select {
				case <-t.stop:
					return
				default:
				}
				began := time.Now()
				_, err := echo(c, fmt.Sprintf("client %d, question %d", i, n), busy)
				t.count(began, err)
			}
		})
	}
	m.Cleanup(t.halt)
	return t
}

// outside leads the datagrams to a program that is not in the mesh.
func (m *mesh) outside(at string) {
	m.Helper()
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	m.check(err)
	m.Cleanup(func() { server.Close() })
	go func() { // ends by Close
		buf := make([]byte, 2048)
		for {
			n, from, err := server.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = server.WriteTo(fmt.Appendf(nil, "outside %s", buf[:n]), from) // a session that has ended refuses it
		}
	}()
	address := map[string]string{"netns": "10.77.0.1", "ports": "127.0.0.1"}[m.isolation]
	m.write("route.yaml", fmt.Sprintf(outsideService, server.LocalAddr().(*net.UDPAddr).Port, address))
	c, err := net.Dial("udp", at)
	m.check(err)
	defer c.Close()
	m.eventually(5*time.Second, "the program outside answers", func() error {
		if who, err := echo(c, "anybody?", time.Second); err != nil || who != "outside" {
			return fmt.Errorf("%q, %v", who, err)
		}
		return nil
	})
}

// portGoes takes the route away: nobody listens any more, and the status says so.
func (m *mesh) portGoes(at string) {
	m.Helper()
	m.write("route.yaml", "")
	m.eventually(5*time.Second, "the port is closed", func() error {
		if g := m.status().Gateways; len(g) != 0 {
			return fmt.Errorf("%+v", g)
		}
		c, err := net.Dial("udp", at)
		m.check(err)
		defer c.Close()
		if _, err := echo(c, "anybody?", time.Second); !errors.Is(err, syscall.ECONNREFUSED) {
			return fmt.Errorf("an answer, or silence: %v", err)
		}
		return nil
	})
}
