package wire

import "strings"

// operators are Envoy's command operators that proxies fill in in values of header fields.
// Source: Envoy's documentation of custom request and response headers.
var operators = map[string]bool{
	"DOWNSTREAM_REMOTE_ADDRESS": true, "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT": true, "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT": true,
	"DOWNSTREAM_LOCAL_ADDRESS": true, "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT": true, "DOWNSTREAM_LOCAL_PORT": true,
	"DOWNSTREAM_PEER_URI_SAN": true, "PROTOCOL": true, "REQUESTED_SERVER_NAME": true, "ROUTE_NAME": true, "RESPONSE_CODE": true,
	"UPSTREAM_HOST": true, "UPSTREAM_CLUSTER": true, "HOSTNAME": true, "START_TIME": true, "RESPONSE_FLAGS": true,
}

// KnownOperator reports whether proxies fill in the operator that stands between two percent signs: "PROTOCOL", "REQ(name)" or
// "REQ(name?otherwise)" with names of fields or pseudo-headers, or "RESP(name)".
func KnownOperator(op string) bool {
	if operators[op] {
		return true
	}
	arguments, ok := strings.CutPrefix(op, "REQ(")
	if !ok {
		arguments, ok = strings.CutPrefix(op, "RESP(")
	}
	if arguments, ok = cutEnd(arguments, ok); !ok {
		return false
	}
	names := strings.Split(arguments, "?")
	for _, name := range names {
		if name = strings.TrimPrefix(name, ":"); name == "" || strings.ContainsAny(name, "(): ") {
			return false
		}
	}
	return len(names) == 1 || op[2] == 'Q' && len(names) == 2
}

func cutEnd(s string, ok bool) (string, bool) {
	s, closed := strings.CutSuffix(s, ")")
	return s, ok && closed
}
