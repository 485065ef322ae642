package parity

import (
	"net"
	"strconv"
	"testing"
)

// TestLocalReplies: what a route says of responses holds for those that the proxy makes, too.
func TestLocalReplies(t *testing.T) {
	cors := `envoy.filters.http.cors: {"@type": type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy, allow_origin_string_match: [{exact: "https://ok.example"}], expose_headers: x-e}`
	w := newTwins(t, settings{filters: `
- {name: envoy.filters.http.cors, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors}}
- {name: envoy.filters.http.rbac, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC, rules: {action: DENY, policies: {p: {permissions: [{header: {name: x-bad, present_match: true}}], principals: [{any: true}]}}}}}
- {name: envoy.filters.http.fault, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault}}
`, routes: `
virtual_hosts:
- name: all
  domains: ["*"]
  response_headers_to_add: [{header: {key: x-host, value: h}}]
  routes:
  - match: {prefix: /dead}
    route: {cluster: dead}
    response_headers_to_add: [{header: {key: x-r, value: "%RESPONSE_FLAGS%"}}]
    response_headers_to_remove: [x-gone]
    typed_per_filter_config: {` + cors + `}
  - match: {prefix: /empty}
    route: {cluster: empty}
    response_headers_to_add: [{header: {key: x-r, value: v}}]
    typed_per_filter_config: {` + cors + `}
  - match: {prefix: /slow}
    route: {cluster: hang, timeout: 0.05s}
    response_headers_to_add: [{header: {key: x-r, value: v}}]
    typed_per_filter_config: {` + cors + `}
  - match: {prefix: /abort}
    route: {cluster: b}
    response_headers_to_add: [{header: {key: x-r, value: v}}]
    typed_per_filter_config: {` + cors + `, envoy.filters.http.fault: {"@type": type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault, abort: {http_status: 555, percentage: {numerator: 100}}}}
  - match: {prefix: /none}
    route: {cluster_header: x-to}
    response_headers_to_add: [{header: {key: x-r, value: v}}]
    typed_per_filter_config: {` + cors + `}
  - match: {prefix: /up}
    route: {cluster: b}
    response_headers_to_add: [{header: {key: x-r, value: v}}]
    typed_per_filter_config: {` + cors + `}
`, clusters: `
- name: dead
  connect_timeout: 1s
  type: STATIC
  load_assignment: {cluster_name: dead, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 1}}}}]}]}
- {name: empty, connect_timeout: 1s, type: STATIC, load_assignment: {cluster_name: empty, endpoints: []}}
- name: hang
  connect_timeout: 1s
  type: STATIC
  load_assignment: {cluster_name: hang, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: ` + silent(t) + `}}}}]}]}
`})
	w.differ("policies come before other origins' rights, in whatever order the filters are listed", ".* x-bad: 1 . Origin: https://ok.*")
	w.differ("gRPC is a POST, and the words of a failure are ours", ".*content-type: application/grpc.*")
	for _, o := range []string{"", " | Origin: https://ok.example", " | Origin: https://bad.example"} {
		w.same("/dead"+o, "/empty"+o, "/slow"+o, "/abort"+o, "/none"+o, "/none | x-to: nowhere"+o, "/none | x-to: b"+o, "/up | x-bad: 1"+o, "/dead | x-bad: 1"+o, "/unknown"+o, "/up"+o, "/dead | content-type: application/grpc"+o, "POST /dead | content-type: application/grpc"+o)
	}
}

// silent gives the port of a backend that takes connections and says nothing.
func silent(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}
