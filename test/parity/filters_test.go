package parity

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestMirrors(t *testing.T) {
	w := newTwins(t, settings{routes: `
virtual_hosts:
- name: vh
  domains: ["vh.example"]
  request_mirror_policies: [{cluster: m}]
  routes:
  - {match: {prefix: /own}, route: {cluster: b, request_mirror_policies: [{cluster: m, disable_shadow_host_suffix_append: true}]}}
  - {match: {prefix: /}, route: {cluster: b}}
- name: all
  domains: ["*"]
  routes:
  - {match: {prefix: /plain}, route: {cluster: b, request_mirror_policies: [{cluster: m}]}}
  - {match: {prefix: /nosuffix}, route: {cluster: b, request_mirror_policies: [{cluster: m, disable_shadow_host_suffix_append: true}]}}
  - {match: {prefix: /rewrite}, route: {cluster: b, prefix_rewrite: /new, host_rewrite_literal: h.new, request_mirror_policies: [{cluster: m}]}, request_headers_to_add: [{header: {key: x-a, value: v}}]}
  - {match: {prefix: /two}, route: {cluster: b, request_mirror_policies: [{cluster: m}, {cluster: m}]}}
  - {match: {prefix: /never}, route: {cluster: b, request_mirror_policies: [{cluster: m, runtime_fraction: {default_value: {numerator: 0}}}]}}
  - {match: {prefix: /all}, route: {cluster: b, request_mirror_policies: [{cluster: m, runtime_fraction: {default_value: {numerator: 10000, denominator: TEN_THOUSAND}}}]}}
  - {match: {prefix: /}, route: {cluster: b}}
`, clusters: `
- name: m
  connect_timeout: 1s
  type: STATIC
  load_assignment: {cluster_name: m, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: BACKEND}}}}]}]}
`})
	w.differ("an IPv6 address has no place for a mark", ".*Host: .::1.*")
	seen := func(address, line string, n int) string {
		w.backend.Take()
		ask(address, request(line))
		for end := time.Now().Add(time.Minute); len(w.backend.Received()) < n && time.Now().Before(end); {
			time.Sleep(5 * time.Millisecond)
		}
		time.Sleep(30 * time.Millisecond)
		var out []string
		for _, r := range w.backend.Take() {
			out = append(out, strings.ReplaceAll(strings.ReplaceAll(describe(&r), "\nx-forwarded-for: 192.0.2.2", ""), "\n", " / "))
		}
		slices.Sort(out)
		return strings.Join(out, "\n")
	}
	for _, c := range []struct {
		line string
		n    int
	}{{"/plain", 2}, {"/plain | Host: a.example:8080", 2}, {"/plain | Host: [::1]:80", 2}, {"POST /plain | body=hello", 2}, {"/nosuffix", 2}, {"/rewrite/x?q", 2}, {"/two", 3}, {"/never", 1}, {"/all", 2}, {"/none", 1}, {"/x | Host: vh.example", 2}, {"/own | Host: vh.example", 2}, {"HEAD /plain", 2}, {"DELETE /plain", 2}, {"/plain | x-envoy-retry-on: 5xx | x-envoy-upstream-rq-timeout-ms: 100", 2}, {"/plain | Authorization: x | Cookie: a=b | Connection: close", 2}, {"/plain | Upgrade: websocket | Connection: upgrade", 1}} {
		w.compare(c.line, seen(w.envoy, c.line, c.n), seen(w.ours, c.line, c.n))
	}
}

func TestHashes(t *testing.T) {
	// Envoy and we need not choose alike; alike is what chooses alike.
	pol := func(name, policies string) string {
		return fmt.Sprintf("\n  - match: {prefix: /%s}\n    route: {cluster: ring, hash_policy: [%s]}\n", name, policies)
	}
	w := newTwins(t, settings{routes: `
virtual_hosts:
- name: all
  domains: ["*"]
  routes:` + pol("header", "{header: {header_name: x-h}}") + pol("cookie", "{cookie: {name: c, ttl: 0s, path: /p}}") + pol("ttl", "{cookie: {name: c, ttl: 60s}}") + pol("nottl", "{cookie: {name: c}}") + pol("attrs", "{cookie: {name: c, ttl: 60s, attributes: [{name: SameSite, value: Strict}, {name: Secure}]}}") + pol("query", "{query_parameter: {name: q}}") + pol("ip", "{connection_properties: {source_ip: true}}") + pol("both", "{header: {header_name: x-h}}, {query_parameter: {name: q}}") + pol("terminal", "{header: {header_name: x-h}, terminal: true}, {cookie: {name: c, ttl: 60s}}") + `
`, clusters: `
- name: ring
  connect_timeout: 1s
  type: STATIC
  lb_policy: RING_HASH
  load_assignment: {cluster_name: ring, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: BACKEND}}}}]}]}
`})
	cookie := func(s string) string {
		var out []string
		for _, l := range strings.Split(s, "\n") {
			if v, ok := strings.CutPrefix(l, "set-cookie: c="); ok {
				_, rest, _ := strings.Cut(v, ";")
				l = "set-cookie: c=VALUE;" + rest
			}
			out = append(out, l)
		}
		return strings.Join(out, "\n")
	}
	for _, l := range []string{"/header", "/cookie", "/cookie | Cookie: c=1", "/cookie | Cookie: c=", "/ttl", "/ttl | Cookie: d=1", "/nottl", "/attrs", "/query", "/ip", "/both", "/terminal", "/terminal | x-h: 1"} {
		w.compare(l, cookie(ask(w.envoy, request(l))), cookie(ask(w.ours, request(l))))
	}
}

func TestFaultsAndLimits(t *testing.T) {
	w := newTwins(t, settings{filters: `
- {name: envoy.filters.http.fault, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault}}
- {name: envoy.filters.http.local_ratelimit, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit, stat_prefix: x}}
`, routes: `
virtual_hosts:
- name: all
  domains: ["*"]
  routes:
  - match: {prefix: /abort}
    route: {cluster: b}
    typed_per_filter_config: {envoy.filters.http.fault: {"@type": type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault, abort: {http_status: 555, percentage: {numerator: 100}}}}
  - match: {prefix: /gabort}
    route: {cluster: b}
    typed_per_filter_config: {envoy.filters.http.fault: {"@type": type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault, abort: {grpc_status: 5, percentage: {numerator: 100}}}}
  - match: {prefix: /delay}
    route: {cluster: b}
    typed_per_filter_config: {envoy.filters.http.fault: {"@type": type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault, delay: {fixed_delay: 0.05s, percentage: {numerator: 100}}}}
  - match: {prefix: /both}
    route: {cluster: b}
    typed_per_filter_config: {envoy.filters.http.fault: {"@type": type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault, delay: {fixed_delay: 0.05s, percentage: {numerator: 100}}, abort: {http_status: 418, percentage: {numerator: 100}}}}
  - match: {prefix: /none}
    route: {cluster: b}
    typed_per_filter_config: {envoy.filters.http.fault: {"@type": type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault, abort: {http_status: 418, percentage: {numerator: 0}}}}
  - match: {prefix: /direct}
    direct_response: {status: 210}
    typed_per_filter_config: {envoy.filters.http.fault: {"@type": type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault, abort: {http_status: 418, percentage: {numerator: 100}}}}
  - match: {prefix: /limit}
    route: {cluster: b}
    typed_per_filter_config: {envoy.filters.http.local_ratelimit: {"@type": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit, stat_prefix: lim, token_bucket: {max_tokens: 2, tokens_per_fill: 2, fill_interval: 3600s}, filter_enabled: {default_value: {numerator: 100}}, filter_enforced: {default_value: {numerator: 100}}, response_headers_to_add: [{header: {key: x-lim, value: "yes!"}}], enable_x_ratelimit_headers: DRAFT_VERSION_03}}
  - match: {prefix: /glimit}
    route: {cluster: b}
    typed_per_filter_config: {envoy.filters.http.local_ratelimit: {"@type": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit, stat_prefix: lim, status: {code: 503}, rate_limited_as_resource_exhausted: true, token_bucket: {max_tokens: 1, tokens_per_fill: 1, fill_interval: 3600s}, filter_enabled: {default_value: {numerator: 100}}, filter_enforced: {default_value: {numerator: 100}}}}
  - {match: {prefix: /}, route: {cluster: b}}
`})
	w.differ("a status of gRPC is told in gRPC's way", "/gabort")
	w.differ("the limit says when all of it is there again", "/limit.*")
	w.differ("the words are ours", "POST /glimit .*")
	grpc := " | content-type: application/grpc"
	w.same("/abort", "HEAD /abort", "POST /abort | body=x", "POST /abort"+grpc, "/gabort", "POST /gabort"+grpc, "/delay", "/both", "/none", "/direct",
		"/limit", "/limit", "/limit", "/limit | x-answer: 404", "/glimit", "/glimit", "POST /glimit"+grpc, "POST /nothing"+grpc+" | x-answer: 503", "/plain")
}

func TestRBAC(t *testing.T) {
	rbac := func(action, perm, principal string) string {
		return fmt.Sprintf(`{"@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC, rules: {action: %s, policies: {p: {permissions: [%s], principals: [%s]}}}}`, action, perm, principal)
	}
	per := func(path, action, perm, principal string) string {
		return fmt.Sprintf(`
  - match: {prefix: %s}
    route: {cluster: b}
    typed_per_filter_config: {envoy.filters.http.rbac: {"@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute, rbac: {rules: {action: %s, policies: {p: {permissions: [%s], principals: [%s]}}}}}}`, path, action, perm, principal)
	}
	w := newTwins(t, settings{filters: `- {name: envoy.filters.http.rbac, typed_config: ` + rbac("DENY", `{header: {name: x-bad, present_match: true}}`, "{any: true}") + `}`, routes: `
virtual_hosts:
- name: host
  domains: ["host.example"]
  typed_per_filter_config: {envoy.filters.http.rbac: {"@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute, rbac: {rules: {action: DENY, policies: {p: {permissions: [{header: {name: x-host, present_match: true}}], principals: [{any: true}]}}}}}}
  routes:
  - {match: {prefix: /none}, route: {cluster: b}, typed_per_filter_config: {envoy.filters.http.rbac: {"@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute}}}
  - {match: {prefix: /}, route: {cluster: b}}
- name: few
  domains: ["few.example"]
  routes:
  - {match: {prefix: /only}, route: {cluster: b}}
  - {match: {prefix: /named}, route: {cluster_header: x-cluster}}
- name: all
  domains: ["*"]
  routes:` +
		per("/allow", "ALLOW", `{header: {name: x-ok, string_match: {exact: a}}}`, "{any: true}") +
		per("/deny", "DENY", `{header: {name: x-no, string_match: {exact: a}}}`, "{any: true}") +
		per("/path", "DENY", `{url_path: {path: {prefix: /path/admin}}}`, "{any: true}") +
		per("/and", "ALLOW", `{and_rules: {rules: [{header: {name: x-a, present_match: true}}, {not_rule: {header: {name: x-b, string_match: {exact: z}}}}]}}`, "{direct_remote_ip: {address_prefix: 127.0.0.0, prefix_len: 8}}") +
		per("/ip", "ALLOW", `{any: true}`, "{direct_remote_ip: {address_prefix: 10.0.0.0, prefix_len: 8}}") +
		per("/tmpl", "DENY", `{uri_template: {name: t, typed_config: {"@type": type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig, path_template: "/tmpl/*/x"}}}`, "{any: true}") + `
  - match: {prefix: /direct}
    direct_response: {status: 210}
    typed_per_filter_config: {envoy.filters.http.rbac: {"@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute, rbac: {rules: {action: DENY, policies: {p: {permissions: [{any: true}], principals: [{any: true}]}}}}}}
  - match: {prefix: /off}
    route: {cluster: b}
    typed_per_filter_config: {envoy.filters.http.rbac: {"@type": type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true}}
  - {match: {prefix: /}, route: {cluster: b}}
`})
	// Who may not ask does not learn that there is no route, or that it leads nowhere.
	for _, h := range []string{"", " | x-bad: 1"} {
		w.same("/only | Host: few.example"+h, "/other | Host: few.example"+h, "/named | Host: few.example | x-cluster: nowhere"+h,
			"/named | Host: few.example | x-cluster: b"+h, "/named | Host: few.example"+h)
	}
	w.differ("what a field with several values grants depends on who reads it: all of them have to", "/allow .*x-ok: .*x-ok: .*")
	for _, h := range []string{"", " | x-bad: 1", " | x-host: 1"} {
		w.same("/none | Host: host.example"+h, "/x | Host: host.example"+h, "/x"+h, "/off"+h, "/direct"+h, "/allow"+h, "/deny"+h, "/ip"+h)
	}
	for _, h := range []string{"", " | x-ok: a", " | x-ok: b", " | x-ok: a | x-ok: b", " | x-ok: b | x-ok: a"} {
		w.same("/allow" + h)
	}
	for _, h := range []string{"", " | x-no: a", " | x-no: b", " | x-no: a | x-no: b", " | x-no: b | x-no: a"} {
		w.same("/deny" + h)
	}
	w.same("/path/admin", "/path/admin/x", "/path/adm", "/path/admin?x", "/path//admin", "/path/%61dmin", "/and | x-a: 1", "/and | x-a: 1 | x-b: z", "/and", "/and | x-a: 1 | x-b: y", "/tmpl/a/x", "/tmpl/a/y", "/tmpl/a/b/x",
		"POST /deny | x-no: a | content-type: application/grpc")
}
