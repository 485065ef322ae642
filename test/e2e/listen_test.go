package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/api"
	"github.com/weftmesh/weft/internal/loopback/loopbacktest"
)

// boundWorkloads are a server of lines at two ports of one service, which listens at a unix socket, and a client whose sidecar listens for it at these ports of its
// own loopback.
const boundWorkloads = `apiVersion: v1
kind: Service
metadata: {name: lines}
spec:
  selector: {app: lines}
  ports:
  - {name: tcp-one, port: FIRST, targetPort: 7000}
  - {name: tcp-two, port: SECOND, targetPort: 7000}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: lines}
spec:
  selector: {matchLabels: {app: lines}}
  template:
    metadata: {labels: {app: lines}}
    spec:
      containers:
      - {name: lines, command: [program, unix, SOCKET], ports: [{containerPort: 7000}]}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: lines}
spec:
  workloadSelector: {labels: {app: lines}}
  ingress:
  - port: {number: 7000, protocol: TCP, name: tcp}
    defaultEndpoint: unix://SOCKET
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: caller}
spec:
  selector: {matchLabels: {app: caller}}
  template:
    metadata: {labels: {app: caller}}
    spec:
      containers:
      - {name: caller, command: [program, http, "8000"], ports: [{containerPort: 8000}]}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: caller}
spec:
  workloadSelector: {labels: {app: caller}}
  egress:
  - port: {number: FIRST, protocol: TCP, name: one}
    bind: 127.0.0.1
    captureMode: NONE
    hosts: ["./lines.default.svc.cluster.local"]
  - port: {number: SECOND, protocol: TCP, name: two}
    captureMode: NONE
    hosts: ["./lines.default.svc.cluster.local"]
  - hosts: ["./*"]
`

// TestSidecarListens has a sidecar listen at addresses of its own. One that another program has is said, keeps the proxy from nothing
// else, and is taken once it is free; upgrades of the proxy hand them on.
func TestSidecarListens(t *testing.T) {
	for _, isolation := range []string{"netns", "ports"} {
		t.Run(isolation, func(t *testing.T) {
			t.Parallel()
			one, two := portOfMachine(t), portOfMachine(t)
			one.Close()
			if isolation == "netns" {
				two.Close() // the machine's loopback is not the pod's
			}
			dir, err := os.MkdirTemp("", "ws")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(dir) })
			text := strings.NewReplacer("SOCKET", filepath.Join(dir, "lines.sock"), "FIRST", portOf(one), "SECOND", portOf(two)).Replace(boundWorkloads)
			m := start(t, settings{account: self(), isolation: isolation, bare: true, manifests: map[string]string{"bound.yaml": text}})
			m.saysAt(portOf(one))
			if isolation == "ports" {
				taken := "127.0.0.1:" + portOf(two) + ": address already in use"
				m.eventually(10*time.Second, "the status says which address is taken", func() error { return says(m.status().Findings, taken) })
				two.Close()
				m.eventually(10*time.Second, "the status says nothing of it any more", func() error {
					if says(m.status().Findings, taken) == nil {
						return errors.New(taken)
					}
					return nil
				})
			}
			m.saysAt(portOf(two))
			m.must("proxy", "upgrade")
			m.saysAt(portOf(one))
			m.saysAt(portOf(two))
			m.write("bound.yaml", text[:strings.LastIndex(text, "---")])
			m.eventually(10*time.Second, "nobody listens any more", func() error {
				if r := m.inPod("caller", "say", "127.0.0.1:"+portOf(one), "hello"); r.code == 0 {
					return errors.New(r.String())
				}
				return nil
			})
		})
	}
}

func says(findings []api.Finding, text string) error {
	for _, f := range findings {
		if strings.Contains(f.Text, text) {
			return nil
		}
	}
	return fmt.Errorf("%+v", findings)
}

// saysAt sends a line to a port of the caller's loopback, which the server has to send back.
func (m *mesh) saysAt(port string) {
	m.Helper()
	m.eventually(10*time.Second, "the line comes back", func() error {
		if r := m.inPod("caller", "say", "127.0.0.1:"+port, "hello"); r.code != 0 || r.stdout != "echo hello\n" {
			return errors.New(r.String())
		}
		return nil
	})
}

// portOfMachine is a listener at a port that nobody else is given.
func portOfMachine(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", loopbacktest.Address(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func portOf(l net.Listener) string {
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}
