package consul

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/weftmesh/weft/internal/control/model"
)

// maxPort is the highest that there is.
const maxPort = 1<<16 - 1

// hasIP is whether the address is that of one machine. Connections to 0.0.0.0 would come to the caller itself.
func (i *instance) hasIP() bool {
	a, err := netip.ParseAddr(i.address())
	return err == nil && !a.Unmap().IsUnspecified() && !a.Unmap().IsMulticast()
}

// hasName is whether the address is a host name, which is resolved. The last part of one is not a number (RFC 1123, section 2.1): what looks so
// is an IP address that is written wrongly, such as 010.0.0.1.
func (i *instance) hasName() bool {
	name := strings.TrimSuffix(strings.ToLower(i.address()), ".")
	if _, err := netip.ParseAddr(name); err == nil || len(validation.IsDNS1123Subdomain(name)) > 0 {
		return false
	}
	return strings.Trim(name[strings.LastIndexByte(name, '.')+1:], "0123456789") != ""
}

// where names an instance for a user.
func (i *instance) where() string {
	return fmt.Sprintf("%s on node %s", cmp.Or(i.Service.ID, i.address()), i.Node.Node)
}

// callable leaves the instances of a service that can be called together, and says which cannot: those without a port, without an address, or with
// a host name where the others have IP addresses. Those of other services are not among them.
func (s *Source) callable(name string, all []instance) (kept []instance, findings []model.Finding) {
	var portless, nowhere, named []string
	ips, names := 0, 0
	for i := range all {
		switch in := &all[i]; {
		case in.Service.Service != "" && in.Service.Service != name:
			continue
		case in.Service.Port < 1 || in.Service.Port > maxPort:
			portless = append(portless, fmt.Sprintf("%s (port %d)", in.where(), in.Service.Port))
			continue
		case in.hasIP():
			ips++
		case in.hasName():
			names++
		default:
			nowhere = append(nowhere, fmt.Sprintf("%s (address %.100q)", in.where(), in.address()))
			continue
		}
		kept = append(kept, all[i])
	}
	if names > 0 && ips >= names { // the mesh would have to resolve them all
		kept = slices.DeleteFunc(kept, func(in instance) bool {
			if !in.hasIP() {
				named = append(named, fmt.Sprintf("%s (address %s)", in.where(), in.address()))
			}
			return !in.hasIP()
		})
	}
	leave := func(which []string, code, why, hint string) {
		if len(which) > 0 {
			findings = append(findings, s.finding(name, s.key(name), model.Warning, code, "instances "+why+" are left out: "+enumerate(which), hint))
		}
	}
	leave(portless, "InstanceWithoutPort", "without a port from 1 to 65535", "register them with their port")
	leave(nowhere, "InstanceWithoutAddress", "whose address is neither a host name nor the IP address of one machine", "register them with their IP address")
	leave(named, "InstanceWithHostName", "whose address is a host name, where others have IP addresses,",
		"register them with their IP addresses; a service most of whose instances have host names is resolved by DNS")
	return kept, findings
}

// agree gives the port that clients name and what is spoken there. The port is that of most instances, the protocol that of most that take
// requests and say one; of equals, the port that has more instances that take requests, then the lowest, and the first protocol by name. The findings
// say who differs: from a protocol, and from a port that more than half of the instances have. Where most have ports of their own, as schedulers
// give them, that is meant.
func (s *Source) agree(name string, all []instance) (port int, protocol string, findings []model.Finding) {
	ports, portsUp := map[int]int{}, map[int]int{}
	said, saidUp := map[string]int{}, map[string]int{}
	var strange []string
	for i := range all {
		in := &all[i]
		up := min(in.weight(), 1)
		ports[in.Service.Port]++
		portsUp[in.Service.Port] += up
		if p := in.protocol(); p != "" {
			said[p]++
			saidUp[p] += up
		} else if other := in.Service.Meta["protocol"]; other != "" {
			strange = append(strange, fmt.Sprintf("%s (%.40q)", in.where(), other))
		}
	}
	if len(strange) > 0 {
		findings = append(findings, s.finding(name, s.key(name), model.Warning, "UnknownProtocol",
			"the meta \"protocol\" of instances names none that the mesh carries, and does not count: "+enumerate(strange),
			"register them with one of "+strings.Join(protocols, ", ")+"; without one, what is spoken is found out"))
	}
	port, protocol = most(ports, portsUp), most(saidUp, said)
	if len(said) > 1 {
		findings = append(findings, s.disagree(name, all, "protocol", protocol, func(in *instance) string { return cmp.Or(in.protocol(), protocol) }))
	}
	if n := ports[port]; n < len(all) && 2*n > len(all) {
		findings = append(findings, s.disagree(name, all, "port", fmt.Sprint(port), func(in *instance) string { return fmt.Sprint(in.Service.Port) }))
	}
	return port, protocol, findings
}

// protocols are those that a port of a ServiceEntry may have.
var protocols = []string{"HTTP", "HTTPS", "HTTP2", "GRPC", "GRPC-WEB", "TLS", "TCP", "MONGO", "MYSQL", "REDIS"}

// protocol is what an instance says that it speaks; empty when it does not, or names none of protocols.
func (i *instance) protocol() string {
	if p := strings.ToUpper(i.Service.Meta["protocol"]); slices.Contains(protocols, p) {
		return p
	}
	return ""
}

// most gives what has the highest count, and of equals the highest second count, and the first; the zero value when there is none.
func most[K cmp.Ordered](first, second map[K]int) (best K) {
	for i, k := range slices.Sorted(maps.Keys(first)) {
		if i == 0 || cmp.Or(cmp.Compare(first[k], first[best]), cmp.Compare(second[k], second[best])) > 0 {
			best = k
		}
	}
	return best
}

// disagree says which instances have something else than what is taken for all.
func (s *Source) disagree(name string, all []instance, what, taken string, of func(*instance) string) model.Finding {
	var others []string
	for i := range all {
		if has := of(&all[i]); has != taken {
			others = append(others, fmt.Sprintf("%s (%s)", all[i].where(), has))
		}
	}
	hint := "register them all with the same meta \"protocol\""
	if what == "port" {
		hint = "calls of the service's port reach each instance at its own; clients name the one that is taken"
	}
	return s.finding(name, s.key(name), model.Warning, "InstancesDisagree",
		fmt.Sprintf("the instances disagree about the service's %s: %s is taken, and these say another: %s", what, taken, enumerate(others)), hint)
}

// maxNamed bounds the instances that a finding names.
const maxNamed = 5

// enumerate names some and counts the others.
func enumerate(which []string) string {
	slices.Sort(which)
	n, more := len(which), ""
	if n > maxNamed {
		which, more = which[:maxNamed], fmt.Sprintf(" and %d more", n-maxNamed)
	}
	return strings.Join(which, ", ") + more
}
