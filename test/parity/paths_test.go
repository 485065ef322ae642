package parity

import (
	"fmt"
	"testing"
)

func TestRewrites(t *testing.T) {
	w := newTwins(t, settings{routes: `
most_specific_header_mutations_wins: false
request_headers_to_add: [{header: {key: x-order, value: table}}]
response_headers_to_add: [{header: {key: x-rorder, value: table}}]
virtual_hosts:
- name: all
  domains: ["*"]
  request_headers_to_add: [{header: {key: x-order, value: host}}]
  response_headers_to_add: [{header: {key: x-rorder, value: host}}]
  routes:
  - {match: {path_separated_prefix: /sep}, route: {cluster: b, prefix_rewrite: "/"}}
  - {match: {path_separated_prefix: /sep2}, route: {cluster: b, prefix_rewrite: "/x/"}}
  - {match: {path_separated_prefix: /sep3}, route: {cluster: b, prefix_rewrite: "/x"}}
  - {match: {prefix: /pre/}, route: {cluster: b, prefix_rewrite: "/"}}
  - {match: {prefix: /prex}, route: {cluster: b, prefix_rewrite: "/y"}}
  - {match: {prefix: /preq}, route: {cluster: b, prefix_rewrite: "/y?z=1"}}
  - {match: {path: /exact}, route: {cluster: b, prefix_rewrite: "/z"}}
  - {match: {prefix: /Fold, case_sensitive: false}, route: {cluster: b, prefix_rewrite: "/folded"}}
  - {match: {safe_regex: {regex: "/re/.*"}}, route: {cluster: b, prefix_rewrite: "/whole"}}
  - {match: {prefix: /rr}, route: {cluster: b, regex_rewrite: {pattern: {regex: "^/rr/([^/]+)/(.*)$"}, substitution: "/\\2/\\1"}}}
  - {match: {prefix: /rg}, route: {cluster: b, regex_rewrite: {pattern: {regex: "b"}, substitution: "c\\0d"}}}
  - {match: {prefix: /re0}, route: {cluster: b, regex_rewrite: {pattern: {regex: "x*"}, substitution: "-"}}}
  - {match: {prefix: /rbs}, route: {cluster: b, regex_rewrite: {pattern: {regex: "s"}, substitution: "\\\\"}}}
  - {match: {prefix: /hl}, route: {cluster: b, host_rewrite_literal: new.h}}
  - {match: {prefix: /hlx}, route: {cluster: b, host_rewrite_literal: new.h, append_x_forwarded_host: true}}
  - {match: {prefix: /hh}, route: {cluster: b, host_rewrite_header: x-h, append_x_forwarded_host: true}}
  - {match: {prefix: /hr}, route: {cluster: b, host_rewrite_path_regex: {pattern: {regex: "^/hr/([^/]+)/.*$"}, substitution: "\\1.r"}}}
  - match: {path_match_policy: {name: t, typed_config: {"@type": type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig, path_template: "/t/{a}/x/{b=**}"}}}
    route: {cluster: b, path_rewrite_policy: {name: t, typed_config: {"@type": type.googleapis.com/envoy.extensions.path.rewrite.uri_template.v3.UriTemplateRewriteConfig, path_template_rewrite: "/new/{b}/{a}"}}}
  - match: {path_match_policy: {name: t, typed_config: {"@type": type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig, path_template: "/u/*/y/{v=a/*}.s"}}}
    direct_response: {status: 211}
  - match: {path_match_policy: {name: t, typed_config: {"@type": type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig, path_template: "/u/**"}}}
    direct_response: {status: 212}
  - {match: {prefix: /wh}, route: {host_rewrite_literal: route.h, weighted_clusters: {clusters: [{name: b, weight: 1, host_rewrite_literal: cluster.h, request_headers_to_add: [{header: {key: x-order, value: split}}], response_headers_to_add: [{header: {key: x-rorder, value: split}}], request_headers_to_remove: [x-rm]}, {name: b, weight: 0}]}}, request_headers_to_add: [{header: {key: x-order, value: route}}]}
  - {match: {prefix: /wt}, route: {weighted_clusters: {total_weight: 3, clusters: [{name: b, weight: 1}, {name: b, weight: 2}]}}}
  - match: {prefix: /add}
    route: {cluster: b}
    request_headers_to_remove: [x-rm, X-Rm2]
    response_headers_to_remove: [x-gone, server]
    request_headers_to_add:
    - {header: {key: x-a, value: "%REQ(x-v)%"}}
    - {header: {key: x-b, value: "%REQ(x-none?x-v)%"}}
    - {header: {key: x-d, value: "100%%"}}
    - {header: {key: x-e, value: "%PROTOCOL% %REQ(:METHOD)% %REQ(:PATH)% %REQ(:AUTHORITY)%"}}
    - {header: {key: x-g, value: "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"}}
    - {header: {key: x-v, value: "over"}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}
    - {header: {key: x-i, value: "%REQ(x-v)%"}, append_action: ADD_IF_ABSENT}
    response_headers_to_add:
    - {header: {key: x-cl, value: "%UPSTREAM_CLUSTER% %RESPONSE_FLAGS%"}}
    - {header: {key: x-resp, value: "%RESP(x-up)%"}}
    - {header: {key: x-up, value: more}}
    - {header: {key: set-cookie, value: a=b}}
  - match: {prefix: /dadd}
    direct_response: {status: 404, body: {inline_string: "direct body"}}
  - {match: {prefix: /d200}, direct_response: {status: 200, body: {inline_string: "direct hi"}}}
  - {match: {prefix: /d204}, direct_response: {status: 204}}
  - {match: {prefix: /d304}, direct_response: {status: 304}}
  - {match: {prefix: /auto}, route: {cluster: b, host_rewrite_literal: ""}}
  - {match: {prefix: /pp}, route: {cluster: b, path_rewrite: "/w"}}
  - {match: {prefix: /}, route: {cluster: b}}
`})
	w.differ("between the parts of a path there is one slash", "/sep2?(/.*|.q)?", "/sep2")
	w.differ("a query is added to one that the rewrite has", "/preqz?.a.*")
	w.differ("an expression that matches nothing is replaced between all characters, not refused", "/re0/.*")
	w.differ("what is no host does not become one", "/hr/foo")
	w.differ("all values of a field are its value", "/add . x-v: 1 . x-v: 2")
	w.differ("304 is no place to go to", "/d304")
	w.differ("TE is for one connection, which is said (RFC 9110 section 10.1.4)", ".*TE: .*")
	w.differ("the proxy waits with 100 until the body is wanted, and there is none", ".*100-continue")
	w.same("/sep", "/sep/", "/sep/a", "/sep//a", "/sep?q", "/sep2", "/sep2/", "/sep2/a", "/sep2?q", "/sep3", "/sep3/", "/sep3/a", "/sep3?q=1", "/pre/a", "/pre/", "/pre//a", "/prex", "/prexx?q", "/prex/", "/preq", "/preq?a=b", "/preqz?a", "/exact", "/exact?q", "/fold/x", "/FOLDED?x",
		"/re/x?q=1", "/rr/a/b", "/rr/a/b/c?x=/y", "/rr/a", "/rg/bb?b", "/re0/xx/y", "/rbs/s", "/hl", "/hlx", "/hlx | x-forwarded-host: p", "/hh", "/hh | x-h: set.h", "/hh | x-h: ", "/hr/foo/x", "/hr/foo", "/hr/foo/x?y=/z",
		"/t/1/x/2", "/t/1/x/2/3?q", "/t/1/x/", "/t//x/2", "/t/1/y/2", "/t/%41/x/b%2Fc", "/t/1/x/2/", "/u/q/y/a/b.s", "/u/q/y/a/b", "/u/q/y/a/.s", "/u/q/y/a/b/c.s", "/u/", "/u", "/u/x", "/u/x/y//z",
		"/wh | x-rm: 1", "/wh | x-order: client", "/wt",
		"/add | x-v: value | x-rm: 1 | x-rm2: 2 | x-give: x-gone: 1 | x-give: X-Up: u", "/add | x-v: 1 | x-v: 2", "/add | x-i: own | Host: orig.host", "/add", "HEAD /add", "/add | x-answer: 503",
		"/dadd", "/d200", "HEAD /d200", "/d204", "/d304", "/auto", "/plain | x-forwarded-proto: https", "/plain | X-Forwarded-For: 1.2.3.4", "/plain | Connection: x-drop | x-drop: 1", "/plain | TE: trailers", "/plain | TE: gzip, trailers", "/plain | x-envoy-attempt-count: 9 | x-envoy-internal: true | x-envoy-original-path: /z",
		"/pp/a?q", "POST /hl | body=hello", "/plain | Via: 1.1 x | Forwarded: for=1", "/plain | Expect: 100-continue")
}

func TestRedirects(t *testing.T) {
	w := newTwins(t, settings{routes: `
virtual_hosts:
- name: tls
  domains: ["tls.example"]
  require_tls: ALL
  routes: [{match: {prefix: /}, route: {cluster: b}}]
- name: all
  domains: ["*"]
  routes:
  - {match: {prefix: /rd/host}, redirect: {host_redirect: other.h}}
  - {match: {prefix: /rd/https}, redirect: {https_redirect: true}}
  - {match: {prefix: /rd/scheme}, redirect: {scheme_redirect: ftp}}
  - {match: {prefix: /rd/httpscheme}, redirect: {scheme_redirect: http}}
  - {match: {prefix: /rd/p443}, redirect: {port_redirect: 443, https_redirect: true}}
  - {match: {prefix: /rd/p80}, redirect: {port_redirect: 80}}
  - {match: {prefix: /rd/p8080}, redirect: {port_redirect: 8080}}
  - {match: {prefix: /rd/hp}, redirect: {host_redirect: "h.x:99"}}
  - {match: {prefix: /rd/hpp}, redirect: {host_redirect: "h.x:99", port_redirect: 100}}
  - {match: {prefix: /rd/path}, redirect: {path_redirect: "/n"}}
  - {match: {prefix: /rd/pq}, redirect: {path_redirect: "/n?a=1"}}
  - {match: {prefix: /rd/pfrag}, redirect: {path_redirect: "/n#f"}}
  - {match: {prefix: /rd/pstrip}, redirect: {path_redirect: "/n?a=1", strip_query: true}}
  - {match: {prefix: /rd/strip}, redirect: {strip_query: true}}
  - {match: {prefix: /rd/pre}, redirect: {prefix_rewrite: "/n?a=1"}}
  - {match: {path_separated_prefix: /rd/sep}, redirect: {prefix_rewrite: "/"}}
  - {match: {path_separated_prefix: /rd/sep2}, redirect: {prefix_rewrite: "/z"}}
  - {match: {safe_regex: {regex: "/rd/re/.*"}}, redirect: {prefix_rewrite: "/whole"}}
  - {match: {path: /rd/ex}, redirect: {prefix_rewrite: "/whole"}}
  - {match: {prefix: /rd/rr}, redirect: {regex_rewrite: {pattern: {regex: "^/rd/rr/(.*)$"}, substitution: "/x/\\1"}}}
  - {match: {prefix: /rd/302}, redirect: {response_code: FOUND, host_redirect: o}}
  - {match: {prefix: /rd/303}, redirect: {response_code: SEE_OTHER, host_redirect: o}}
  - {match: {prefix: /rd/307}, redirect: {response_code: TEMPORARY_REDIRECT, host_redirect: o}}
  - {match: {prefix: /rd/308}, redirect: {response_code: PERMANENT_REDIRECT, host_redirect: o}}
  - {match: {prefix: /rd/add}, redirect: {path_redirect: /x}, response_headers_to_add: [{header: {key: x-q, value: "yy"}}]}
`})
	w.differ("between the parts of a path there is one slash", "/rd/sep/a")
	w.differ("a query is added to one that the rewrite has", "/rd/pre.b=2")
	w.differ("a port that goes without saying is not written", "/rd/p443.*", "/rd/p80(80)?.q=1 . Host: .*")
	w.differ("a redirect is one for gRPC, too", "POST /rd/302 .*")
	for _, h := range []string{"a.h", "a.h:80", "a.h:8080", "[::1]:80", "[::1]", "a.h:443", "A.H"} {
		for _, p := range []string{"host", "https", "scheme", "httpscheme", "p443", "p80", "p8080", "hp", "hpp", "path", "strip"} {
			w.same("/rd/"+p+"?q=1 | Host: "+h, "/rd/"+p+"?q=1 | x-forwarded-proto: https | Host: "+h)
		}
	}
	w.same("/rd/pq", "/rd/pq?b=2", "/rd/pfrag?x", "/rd/pstrip?b", "/rd/strip", "/rd/pre/x", "/rd/pre?b=2", "/rd/sep", "/rd/sep/a", "/rd/sep?x", "/rd/sep2", "/rd/sep2/", "/rd/sep2/a?x", "/rd/re/x?y", "/rd/ex?q", "/rd/rr/a?b=c", "/rd/rr", "/rd/302", "/rd/303", "/rd/307", "POST /rd/308 | body=x", "/rd/add", "HEAD /rd/add",
		"/x | Host: tls.example", "/x | Host: tls.example | x-forwarded-proto: https", "POST /x?y | Host: tls.example", "http://a.example/rd/strip?x", "/rd/host%20x", "/rd/host//x", "/rd/host/../x", "POST /rd/302 | content-type: application/grpc")
}

func TestPathsAndHosts(t *testing.T) {
	for _, merge := range []bool{false, true} {
		for _, c := range []struct {
			normal  bool
			escaped string
		}{{false, "KEEP_UNCHANGED"}, {true, "KEEP_UNCHANGED"}, {false, "REJECT_REQUEST"}, {true, "UNESCAPE_AND_REDIRECT"}, {true, "UNESCAPE_AND_FORWARD"}, {false, "UNESCAPE_AND_FORWARD"}} {
			normal, escaped := c.normal, c.escaped
			w := newTwins(t, settings{manager: fmt.Sprintf("normalize_path: %v\nmerge_slashes: %v\npath_with_escaped_slashes_action: %s", normal, merge, escaped), routes: `
ignore_port_in_host_matching: true
virtual_hosts:
- name: dom
  domains: ["exact.example", "*.suf.example", "pre.*"]
  routes: [{match: {prefix: /}, direct_response: {status: 202}}]
- name: all
  domains: ["*"]
  routes:
  - {match: {prefix: /admin}, direct_response: {status: 203}}
  - {match: {prefix: /}, route: {cluster: b}}
`})
			w.differ("an authority has a port of digits, one, and no user (RFC 9110 section 4.2)", ".*Host: exact.example:(x|80:90)", ".*u@exact.*", ".*Host: ")
			w.differ("an absolute target without a path means /", "http://exact.example.x")
			w.differ("questions to the server in general are answered by it", "OPTIONS .*")
			w.differ("a gateway knows no CONNECT", "CONNECT .*")
			if normal {
				w.differ("what leads out of the root is refused", "/../admin")
			}
			if normal {
				w.differ("characters that no path may have are left to the backend", `/a[|"<^\x60{]b.*`)
			}
			if escaped == "UNESCAPE_AND_REDIRECT" {
				w.differ("a path alone that begins with two slashes would lead to another host", "/.*%(2F|2f|5c).*")
			}
			for _, p := range []string{"/a/../admin", "/a/./admin", "/./admin", "/../admin", "/a/%2e%2e/admin", "/a/%2E./admin", "/%61dmin", "/a%2fadmin", "/a%2Fb%5Cc?x=%2F", "/%2Fa", "/a%2F%2e%2e/admin", "/a%2F..%2Fadmin", "/a\\..\\admin", "/a/..\\admin", "//admin", "/a//b", "/a/..//admin", "/admin/..", "/admin/../", "/a/b/../..", "/a/...", "/a/..a", "/.hidden", "/a/.", "/a?b=/../c", "/a?b=%2e%2e", "/a%00b", "/a%zz", "/a%", "/a%2", "/A%C3%A9", "/~a", "/%7Ea", "/a;b=c/../d", "/a%5c..%5cadmin", "/a%25%32%65", "/%252e%252e/admin", "/a/%2e", "/a/%2e%2e", "/a/b/%2e%2e/", "/a+b", "/a%20b", "/%41%5B%5D", "/[x]", "/a|b", "/a\"b", "/a<b>", "/a^b", "/a`b", "/a{b}", "/a#frag", "/a/%2f/b", "/a?x#y"} {
				w.same(p)
			}
			for _, h := range []string{"exact.example:80", "exact.example:1234", "EXACT.example:80", "x.suf.example:80", "pre.a:80", "pre.:80", "exact.example:", "exact.example:x", "[::1]:80", "exact.example.:80", "exact.example:80:90"} {
				w.same("/ | Host: " + h)
			}
			w.same("http://exact.example/x | Host: other", "http://exact.example:99/x", "http://EXACT.example", "http://exact.example?x", "https://exact.example/admin", "ftp://exact.example/", "http:///x", "http://u@exact.example/", "OPTIONS *", "OPTIONS http://exact.example", "GET *", "/x | Host: ", "CONNECT a.example:80")
		}
	}
}
