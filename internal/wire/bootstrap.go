package wire

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strings"
)

// Bootstrap is what a proxy is told at its start, as a JSON file with mode 0600 (it holds the token). Everything else it learns
// from the control plane.
type Bootstrap struct {
	Node Node `json:"node"`
	// Control is the control plane's address: "host:port" or "unix:///path". Where there are several replicas of it, their addresses
	// stand in a row with commas between them; the proxy takes one at random, and another one when that fails.
	Control string `json:"control"`
	// TrustDomain of the mesh, and Roots: the PEM certificates that the control plane's certificate must lead to.
	TrustDomain string `json:"trustDomain"`
	Roots       string `json:"roots"`
	// Token proves the node's identity to the certificate authority.
	Token string `json:"token"`
	// StateDir (mode 0700) keeps the key, the certificate and the used configuration, so that the proxy can start with the
	// control plane down. Empty keeps nothing.
	StateDir string `json:"stateDir,omitempty"`

	// Outbound and Inbound are the addresses of the transparent listeners (nftables redirects to them); empty for none.
	Outbound string `json:"outbound,omitempty"`
	Inbound  string `json:"inbound,omitempty"`
	// OutboundPorts and InboundPorts are explicit listeners, for when the network cannot redirect.
	OutboundPorts []PortMap `json:"outboundPorts,omitempty"`
	InboundPorts  []PortMap `json:"inboundPorts,omitempty"`
	// ForwardProxy is the address of a listener that takes absolute-form requests and CONNECT (HTTP_PROXY); empty for none.
	ForwardProxy string `json:"forwardProxy,omitempty"`
	// DNS is the UDP and TCP address of the DNS server; empty for none. DNSUpstream are the "ip:port" servers to forward to;
	// when empty, and a Broker is given, the broker's host resolves.
	DNS         string   `json:"dns,omitempty"`
	DNSUpstream []string `json:"dnsUpstream,omitempty"`
	// Admin is the address of metrics, health and dumps; AdminSocket the same on a unix socket. GET /ready answers 200 once the
	// proxy can serve. POST /drain makes the proxy end its inbound connections after their live requests, and answers 200 when
	// none is left; the runtime asks it before it ends the application.
	Admin       string `json:"admin,omitempty"`
	AdminSocket string `json:"adminSocket,omitempty"`
	// Broker is the unix socket of the process that opens listeners and dials the outside in the host's network.
	Broker string `json:"broker,omitempty"`
	// PodNetwork and ServiceNetwork are the mesh's own networks in CIDR form; empty for none. Their addresses are never dialled in
	// the host's network, those of services not at all: they stand for endpoints. HostAlias is the address within them that
	// the broker leads to the host itself; empty for none.
	PodNetwork     string `json:"podNetwork,omitempty"`
	ServiceNetwork string `json:"serviceNetwork,omitempty"`
	HostAlias      string `json:"hostAlias,omitempty"`
	// Mark is set as SO_MARK on the proxy's own connections; 0 for none.
	Mark int `json:"mark,omitempty"`
	// SelfMark is set in its place on connections to the workload's own address (Node.IP) for services that it calls, which have to
	// come in as others' do; 0 where nothing keeps them from it.
	SelfMark int `json:"selfMark,omitempty"`
	// AccessLog is "stdout", a file's path, or empty for none.
	AccessLog string `json:"accessLog,omitempty"`
	// RegistryOnly refuses calls to destinations that the mesh does not know, instead of passing them through.
	RegistryOnly bool `json:"registryOnly,omitempty"`
	// MaxConnections bounds the connections of clients, MaxListenerConnections those at one listener, and MaxRequests the requests
	// under way; 0 is no bound. What comes beyond is closed, or refused with 503.
	MaxConnections         int64 `json:"maxConnections,omitempty"`
	MaxListenerConnections int64 `json:"maxListenerConnections,omitempty"`
	MaxRequests            int64 `json:"maxRequests,omitempty"`
	// MemoryBytes is what the proxy may use; 0 takes the least of GOMEMLIMIT and the limits of its cgroups, and less than 0 none.
	MemoryBytes int64 `json:"memoryBytes,omitempty"`
	// DrainSeconds bounds how long a stopping proxy waits for its live requests; 0 cuts them off. A file without it says
	// DefaultDrainSeconds.
	DrainSeconds int `json:"drainSeconds"`
	// UpgradeSocket is the unix socket where a new process of this proxy asks the running one for its listeners; empty for none.
	// UpgradeDrainSeconds bounds how long the old process then lets its connections live on; 0 is ten minutes.
	UpgradeSocket       string `json:"upgradeSocket,omitempty"`
	UpgradeDrainSeconds int    `json:"upgradeDrainSeconds,omitempty"`
}

// DefaultDrainSeconds is what Istio's terminationDrainDuration is when nobody says another.
const DefaultDrainSeconds = 5

// Controls gives the addresses in Control.
func (b *Bootstrap) Controls() []string {
	all := strings.Split(b.Control, ",")
	for i := range all {
		all[i] = strings.TrimSpace(all[i])
	}
	return all
}

// PortMap binds an explicit listener to what it stands for.
type PortMap struct {
	// Listen is the local "ip:port" to accept on.
	Listen string `json:"listen"`
	// Destination is, outbound, the service as "host:port"; inbound, the workload's own "ip:port" to connect to.
	Destination string `json:"destination"`
	// Port is, inbound, the port that policies name (the manifest's container port); outbound it is 0.
	Port uint16 `json:"port,omitempty"`
}

// Role of a proxy.
type Role string

// The roles.
const (
	Sidecar Role = "sidecar"
	Gateway Role = "router"
)

// Node says who a proxy is. The control plane believes of it only what the certificate proves (namespace and service
// account) and looks the rest up itself where it knows the workload.
type Node struct {
	Role           Role              `json:"role"`
	Name           string            `json:"name"` // pod or process instance, unique in its namespace
	Namespace      string            `json:"namespace"`
	ServiceAccount string            `json:"serviceAccount"`
	Workload       string            `json:"workload"` // the owner: Deployment name
	IP             string            `json:"ip,omitempty"`
	Labels         map[string]string `json:"labels,omitempty"`
	Cluster        string            `json:"cluster,omitempty"`
}

// ID is the node id in xDS, in Istio's form: role~ip~name.namespace~namespace.svc.cluster.local.
func (n Node) ID() string {
	ip := n.IP
	if ip == "" {
		ip = "0.0.0.0"
	}
	return string(n.Role) + "~" + ip + "~" + n.Name + "." + n.Namespace + "~" + n.Namespace + ".svc.cluster.local"
}

// ReadBootstrap reads and checks a bootstrap file.
func ReadBootstrap(path string) (*Bootstrap, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("bootstrap: %w", err)
	}
	b := Bootstrap{DrainSeconds: DefaultDrainSeconds}
	if err := decodeStrict(raw, &b); err != nil {
		return nil, fmt.Errorf("bootstrap %s: %w", path, err)
	}
	if err := b.Check(); err != nil {
		return nil, fmt.Errorf("bootstrap %s: %w", path, err)
	}
	return &b, nil
}

// decodeStrict decodes one JSON object, refuses fields that are none of v's, and says in which line it cannot go on.
func decodeStrict(raw []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	err := d.Decode(v)
	at := d.InputOffset()
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		at = syntax.Offset
	}
	if err == nil {
		if _, err = d.Token(); errors.Is(err, io.EOF) {
			return nil
		}
		at, err = d.InputOffset(), errors.New("something follows the object")
	}
	return fmt.Errorf("line %d: %s", 1+bytes.Count(raw[:min(int(at), len(raw))], []byte("\n")), strings.TrimPrefix(err.Error(), "json: "))
}

// nodeName is what the parts of a node's id may be; "~" and "." separate them.
var nodeName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$`)

// check says what of a node cannot be.
func (n Node) check() error {
	if n.Name == "" || n.Namespace == "" || n.ServiceAccount == "" {
		return fmt.Errorf("node: name, namespace and serviceAccount are required")
	}
	if n.Role != Sidecar && n.Role != Gateway {
		return fmt.Errorf("node.role: %q is neither %q nor %q", n.Role, Sidecar, Gateway)
	}
	for _, part := range []struct{ field, name string }{
		{"name", n.Name}, {"namespace", n.Namespace}, {"serviceAccount", n.ServiceAccount}, {"workload", cmp.Or(n.Workload, n.Name)},
	} {
		if !nodeName.MatchString(part.name) {
			return fmt.Errorf("node.%s: %q: want lower-case letters, digits, hyphens and dots, such as reviews-1", part.field, part.name)
		}
	}
	if _, err := netip.ParseAddr(n.IP); n.IP != "" && err != nil {
		return fmt.Errorf("node.ip: %q is no address", n.IP)
	}
	return nil
}

// checkControls says which of the control plane's addresses cannot be one.
func (b *Bootstrap) checkControls() error {
	for _, a := range b.Controls() {
		if a == "" {
			return fmt.Errorf("control: an address in %q is empty", b.Control)
		}
		if strings.HasPrefix(a, "unix:") {
			continue
		}
		if host, port, err := net.SplitHostPort(a); err != nil || host == "" || port == "" {
			return fmt.Errorf("control: %q: want host:port, such as 10.0.0.1:15012", a)
		}
	}
	return nil
}

// sidecarOnly gives a field that is set and has a meaning for sidecars only; empty for none.
func (b *Bootstrap) sidecarOnly() string {
	switch {
	case b.ForwardProxy != "":
		return "forwardProxy"
	case len(b.OutboundPorts) > 0:
		return "outboundPorts"
	}
	return ""
}

// Check says what a proxy could not start with.
func (b *Bootstrap) Check() error {
	if err := b.Node.check(); err != nil {
		return err
	}
	if b.Control == "" || b.TrustDomain == "" || b.Roots == "" {
		return fmt.Errorf("control, trustDomain and roots are required")
	}
	if err := b.checkControls(); err != nil {
		return err
	}
	for _, n := range []struct {
		field string
		value int64
	}{
		{"maxConnections", b.MaxConnections}, {"maxListenerConnections", b.MaxListenerConnections}, {"maxRequests", b.MaxRequests},
		{"drainSeconds", int64(b.DrainSeconds)}, {"upgradeDrainSeconds", int64(b.UpgradeDrainSeconds)},
	} {
		if n.value < 0 {
			return fmt.Errorf("%s: %d is less than 0", n.field, n.value)
		}
	}
	if field := b.sidecarOnly(); b.Node.Role == Gateway && field != "" {
		return fmt.Errorf("%s: is for sidecars, and node.role is %q, a gateway, which knows no services but those of its routes; "+
			"run a sidecar for programs that call others", field, Gateway)
	}
	for _, a := range []struct{ field, addr string }{
		{"outbound", b.Outbound}, {"inbound", b.Inbound}, {"dns", b.DNS}, {"admin", b.Admin}, {"forwardProxy", b.ForwardProxy},
	} {
		if a.addr == "" {
			continue
		}
		if _, err := netip.ParseAddrPort(a.addr); err != nil {
			return fmt.Errorf("%s: %q: want an address with its port, such as 127.0.0.1:15000", a.field, a.addr)
		}
	}
	return nil
}
