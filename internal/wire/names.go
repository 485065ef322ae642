// Package wire holds what both halves of the mesh must agree on: resource names, node ids, the proxy's bootstrap file and the
// ports. It carries no logic of either half.
package wire

import (
	"fmt"
	"net"
	"strconv"
	"strings"
)

// The mesh's ports. They are Istio's numbers, because users know them.
const (
	OutboundPort       = 15001 // outbound capture
	InboundPort        = 15006 // inbound capture
	ControlPort        = 15012 // xDS and certificate signing, mutual TLS
	ControlMetricsPort = 15014 // control plane's metrics and debug
	WebhookPort        = 15017 // admission webhooks on Kubernetes
	MetricsPort        = 15020 // proxy's metrics, health, config dump
	ReadyPort          = 15021 // readiness of gateways
	DNSPort            = 15053 // DNS of the sidecar
)

// SidecarMark is the socket mark (SO_MARK) of the sidecar's own connections; the redirect rules leave them alone.
const SidecarMark = 1337

// SelfMark is that of its connections to the mesh's port of its own workload; the redirect rules bring them in like everybody else's.
const SelfMark = 1338

// InboundListener names the one listener resource that a sidecar subscribes to for the connections made to its workload. Its
// filter chains are matched by destination port, transport protocol and ALPN, as Envoy does it.
const InboundListener = "virtualInbound"

// OutboundListener names the listener resource that says what a sidecar does with connections to destinations that the mesh does not
// know: its default filter chain relays to PassthroughCluster, BlackHoleCluster or a cluster of the mesh. Requests go there too.
const OutboundListener = "virtualOutbound"

// ProxySettings is the metadata of a sidecar's OutboundListener, and of a gateway's listeners, that says how the proxy itself is to run;
// Concurrency in it is the number of cores that it may use at a time, 0 for all. OpenOutbound and OpenInbound, for sidecars, are lists of
// addresses ("127.0.0.1:3306") that the proxy is to listen at: for its workload's calls, each meaning what the listener resource of that
// name says, and for calls to its workload.
const (
	ProxySettings = "weft.proxy"
	Concurrency   = "concurrency"
	OpenOutbound  = "openOutbound"
	OpenInbound   = "openInbound"
)

// ReadyBut begins what a proxy answers at /ready that can serve, but not all that its configuration names; what is lacking follows.
const ReadyBut = "ready, but "

// GRPCServerListenerPrefix begins the name of the listener of a gRPC server that has no proxy; the address that it listens on
// follows. gRPC makes the name of a template in its bootstrap file, and this one is Istio's.
const GRPCServerListenerPrefix = "xds.istio.io/grpc/lds/inbound/"

// Names of clusters that every node may use without a service behind them.
const (
	// PassthroughCluster connects to the original destination.
	PassthroughCluster = "PassthroughCluster"
	// InboundPassthroughCluster connects to the original destination of a captured inbound connection.
	InboundPassthroughCluster = "InboundPassthroughCluster"
	// BlackHoleCluster has no endpoint: what is sent there is refused.
	BlackHoleCluster = "BlackHoleCluster"
)

// ALPN protocols between sidecars. A ClientHello that offers one of them comes from the mesh; any other TLS is the
// application's own and is passed through under PERMISSIVE.
const (
	ALPNHTTP1 = "istio-http/1.1"
	ALPNHTTP2 = "istio-h2"
	ALPNTCP   = "istio"
)

// UnixPrefix begins the address of an endpoint that is a unix socket: "unix:///PATH", or "unix://@NAME" for one of Linux without a file.
const UnixPrefix = "unix://"

// EndpointName names an endpoint by its address and port, as ListenerName does; a unix socket has no port.
func EndpointName(address string, port uint16) string {
	if strings.HasPrefix(address, UnixPrefix) {
		return address
	}
	return ListenerName(address, port)
}

// ListenerName names the listener resource of an outbound destination: the host as the client wrote it, or an IP address,
// with the port. It is the form that a proxyless gRPC client asks for ("xds:///reviews.default.svc.cluster.local:9080").
func ListenerName(host string, port uint16) string {
	return net.JoinHostPort(strings.ToLower(host), strconv.Itoa(int(port)))
}

// SplitListenerName undoes ListenerName.
func SplitListenerName(name string) (host string, port uint16, err error) {
	host, p, err := net.SplitHostPort(name)
	if err != nil {
		return "", 0, fmt.Errorf("listener name %q: %w", name, err)
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil || n == 0 || host == "" {
		return "", 0, fmt.Errorf("listener name %q: want host:port", name)
	}
	return host, uint16(n), nil
}

// GatewayListenerName names the listener resource of a gateway's port ("0.0.0.0_8080").
func GatewayListenerName(port uint16) string { return "0.0.0.0_" + strconv.Itoa(int(port)) }

// GatewayQUICListenerName names the listener resource of a gateway's UDP port for HTTP/3 ("udp_0.0.0.0_8443").
func GatewayQUICListenerName(port uint16) string { return "udp_" + GatewayListenerName(port) }

// GatewayUDPListenerName names the listener resource of a gateway's port for datagrams, which HTTP/3 cannot have then.
func GatewayUDPListenerName(port uint16) string { return GatewayQUICListenerName(port) }

// Keys of a listener's typed metadata, for what Envoy's filter for datagrams does not have: policies, each with a number behind the
// key, and the clusters among which sessions are divided.
const (
	DatagramPolicies = "weft.dev/udp-policy-"
	DatagramSplit    = "weft.dev/udp-split"
)

// RouteName names the route configuration of a host and port.
func RouteName(host string, port uint16) string { return ListenerName(host, port) }

// GatewayRouteName names the route configuration of a gateway's plaintext HTTP port.
func GatewayRouteName(port uint16) string { return "http." + strconv.Itoa(int(port)) }

// OutboundCluster names a cluster as Istio does: "outbound|9080|v1|reviews.default.svc.cluster.local". The subset may be empty.
func OutboundCluster(port uint16, subset, host string) string {
	return "outbound|" + strconv.Itoa(int(port)) + "|" + subset + "|" + host
}

// DatagramCluster names the cluster of a service's port of UDP: "udp|53||dns.default.svc.cluster.local".
func DatagramCluster(port uint16, host string) string {
	return "udp|" + strconv.Itoa(int(port)) + "||" + host
}

// InboundCluster names the cluster of a workload's own port: "inbound|9080||".
func InboundCluster(port uint16) string { return "inbound|" + strconv.Itoa(int(port)) + "||" }

// ParseCluster splits a cluster name of the forms above; ok is false for any other.
func ParseCluster(name string) (direction string, port uint16, subset, host string, ok bool) {
	p := strings.SplitN(name, "|", 4)
	if len(p) != 4 {
		return "", 0, "", "", false
	}
	n, err := strconv.ParseUint(p[1], 10, 16)
	if err != nil {
		return "", 0, "", "", false
	}
	return p[0], uint16(n), p[2], p[3], true
}
