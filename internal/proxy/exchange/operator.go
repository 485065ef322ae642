package exchange

import (
	"strconv"
	"strings"
)

// operator gives the values of Envoy's command operators.
func (x *Exchange) operator(name, argument string) (string, bool) {
	switch name {
	case "REQ":
		for name := range strings.SplitSeq(argument, "?") {
			if strings.HasPrefix(name, ":") {
				name = strings.ToLower(name) // usual is ":METHOD"
			}
			if v, ok := x.Req.Lookup(name); ok {
				return v, true
			}
		}
		return "", true
	case "RESP":
		v, _ := x.res.Header.Get(argument)
		return v, true
	case "PROTOCOL":
		return x.Req.Proto.String(), true
	case "DOWNSTREAM_REMOTE_ADDRESS":
		return x.d.Remote.String(), true
	case "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT":
		return x.d.Remote.Addr().String(), true
	case "DOWNSTREAM_LOCAL_ADDRESS":
		return x.d.Destination.String(), true
	case "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT":
		return x.d.Destination.Addr().String(), true
	case "DOWNSTREAM_LOCAL_PORT":
		return strconv.Itoa(int(x.d.Destination.Port())), true
	case "DOWNSTREAM_PEER_URI_SAN":
		return x.d.PeerURI, true
	case "REQUESTED_SERVER_NAME":
		return x.d.SNI, true
	case "ROUTE_NAME":
		if x.matched.Route != nil {
			return x.matched.Route.Name, true
		}
		return "", true
	case "RESPONSE_CODE":
		return strconv.Itoa(x.res.Status), true
	case "RESPONSE_FLAGS":
		if x.err != nil {
			return x.err.Flag(), true
		}
		return "-", true
	case "UPSTREAM_CLUSTER":
		if x.split != nil {
			return x.split.Cluster, true
		}
		return "", true
	case "UPSTREAM_HOST":
		if x.call != nil {
			return x.call.Address(), true
		}
		return "", true
	case "HOSTNAME":
		return x.p.Bootstrap.Node.Name, true
	case "START_TIME":
		return x.Start.UTC().Format("2006-01-02T15:04:05.000Z"), true
	}
	return "", false
}
