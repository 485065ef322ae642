package parity

import (
	"strings"
	"testing"
)

func TestRouting(t *testing.T) {
	w := newTwins(t, settings{routes: `
virtual_hosts:
- name: dom
  domains: ["*.suf.example", "pre.*", "exact.example", "*.deep.suf.example", "*-dash.example", "pre.longer.*", "port.example:8080", "[::1]", "*.com"]
  routes:
  - {match: {path: /which}, direct_response: {status: 206}}
  - {match: {prefix: /}, direct_response: {status: 202}}
- name: suf2
  domains: ["x.suf.example", "*.x.deep.suf.example", "pre.longer.example"]
  routes: [{match: {prefix: /}, direct_response: {status: 203}}]
- name: all
  domains: ["*"]
  routes:
  - {match: {prefix: /h/exact, headers: [{name: x-n, string_match: {exact: a}}]}, direct_response: {status: 210}}
  - {match: {prefix: /h/joined, headers: [{name: x-n, string_match: {exact: "a,b"}}]}, direct_response: {status: 210}}
  - {match: {prefix: /h/prefix, headers: [{name: x-n, string_match: {prefix: a}}]}, direct_response: {status: 210}}
  - {match: {prefix: /h/suffix, headers: [{name: x-n, string_match: {suffix: b}}]}, direct_response: {status: 210}}
  - {match: {prefix: /h/contains, headers: [{name: x-n, string_match: {contains: ","}}]}, direct_response: {status: 210}}
  - {match: {prefix: /h/regex, headers: [{name: x-n, string_match: {safe_regex: {regex: "a|b|a,b"}}}]}, direct_response: {status: 210}}
  - {match: {prefix: /h/range, headers: [{name: x-n, range_match: {start: -5, end: 3}}]}, direct_response: {status: 210}}
  - {match: {prefix: /h/notrange, headers: [{name: x-n, range_match: {start: -5, end: 3}, invert_match: true}]}, direct_response: {status: 210}}
  - {match: {prefix: /h/present, headers: [{name: x-n, present_match: true}]}, direct_response: {status: 210}}
  - {match: {prefix: /h/absent, headers: [{name: x-n, present_match: false}]}, direct_response: {status: 210}}
  - {match: {prefix: /h/invpresent, headers: [{name: x-n, present_match: true, invert_match: true}]}, direct_response: {status: 210}}
  - {match: {prefix: /h/invabsent, headers: [{name: x-n, present_match: false, invert_match: true}]}, direct_response: {status: 210}}
  - {match: {prefix: /h/bare, headers: [{name: x-n}]}, direct_response: {status: 210}}
  - {match: {prefix: /h/invbare, headers: [{name: x-n, invert_match: true}]}, direct_response: {status: 210}}
  - {match: {prefix: /h/not, headers: [{name: x-n, string_match: {exact: a}, invert_match: true}]}, direct_response: {status: 210}}
  - {match: {prefix: /h/notempty, headers: [{name: x-n, string_match: {exact: a}, invert_match: true, treat_missing_header_as_empty: true}]}, direct_response: {status: 210}}
  - {match: {prefix: /h/empty, headers: [{name: x-n, string_match: {exact: ""}, treat_missing_header_as_empty: true}]}, direct_response: {status: 210}}
  - {match: {prefix: /h/isempty, headers: [{name: x-n, string_match: {exact: ""}}]}, direct_response: {status: 210}}
  - {match: {prefix: /h/fold, headers: [{name: x-n, string_match: {exact: "AB", ignore_case: true}}]}, direct_response: {status: 210}}
  - {match: {prefix: /h/host, headers: [{name: host, string_match: {prefix: "a.ex"}}]}, direct_response: {status: 210}}
  - {match: {prefix: /h/auth, headers: [{name: ":authority", string_match: {exact: "a.example"}}]}, direct_response: {status: 210}}
  - {match: {prefix: /h/path, headers: [{name: ":path", string_match: {exact: "/h/path?x=1"}}]}, direct_response: {status: 210}}
  - {match: {prefix: /h/method, headers: [{name: ":method", string_match: {exact: "PUT"}}]}, direct_response: {status: 210}}
  - {match: {prefix: /h/scheme, headers: [{name: ":scheme", string_match: {exact: "http"}}]}, direct_response: {status: 210}}
  - {match: {prefix: /h/cookie, headers: [{name: cookie, string_match: {contains: "a=b"}}]}, direct_response: {status: 210}}
  - {match: {prefix: /h/}, direct_response: {status: 299}}
  - {match: {prefix: /q/exact, query_parameters: [{name: a, string_match: {exact: "1"}}]}, direct_response: {status: 210}}
  - {match: {prefix: /q/dec, query_parameters: [{name: a, string_match: {exact: "b c"}}]}, direct_response: {status: 210}}
  - {match: {prefix: /q/regex, query_parameters: [{name: a, string_match: {safe_regex: {regex: "[0-9]+"}}}]}, direct_response: {status: 210}}
  - {match: {prefix: /q/present, query_parameters: [{name: a, present_match: true}]}, direct_response: {status: 210}}
  - {match: {prefix: /q/absent, query_parameters: [{name: a, present_match: false}]}, direct_response: {status: 210}}
  - {match: {prefix: /q/bare, query_parameters: [{name: a}]}, direct_response: {status: 210}}
  - {match: {prefix: /q/empty, query_parameters: [{name: a, string_match: {exact: ""}}]}, direct_response: {status: 210}}
  - {match: {prefix: /q/two, query_parameters: [{name: a, string_match: {exact: "1"}}, {name: b, present_match: true}]}, direct_response: {status: 210}}
  - {match: {prefix: /q/fold, query_parameters: [{name: a, string_match: {exact: "Xy", ignore_case: true}}]}, direct_response: {status: 210}}
  - {match: {prefix: "/q/enc", query_parameters: [{name: "a b", present_match: true}]}, direct_response: {status: 210}}
  - {match: {prefix: /q/}, direct_response: {status: 299}}
  - {match: {prefix: /c/exact, cookies: [{name: a, string_match: {exact: "1"}}]}, direct_response: {status: 210}}
  - {match: {prefix: /c/not, cookies: [{name: a, string_match: {exact: "1"}, invert_match: true}]}, direct_response: {status: 210}}
  - {match: {prefix: /c/empty, cookies: [{name: a, string_match: {exact: ""}}]}, direct_response: {status: 210}}
  - {match: {prefix: /c/two, cookies: [{name: a, string_match: {prefix: "1"}}, {name: b, string_match: {suffix: "2"}}]}, direct_response: {status: 210}}
  - {match: {prefix: /c/}, direct_response: {status: 299}}
  - {match: {path: /p/exact}, direct_response: {status: 210}}
  - {match: {path: /p/Fold, case_sensitive: false}, direct_response: {status: 211}}
  - {match: {prefix: /p/FoldPre, case_sensitive: false}, direct_response: {status: 212}}
  - {match: {path_separated_prefix: /p/Sep, case_sensitive: false}, direct_response: {status: 213}}
  - {match: {path_separated_prefix: /p/sep2}, direct_response: {status: 214}}
  - {match: {safe_regex: {regex: "/p/re/[0-9]+"}}, direct_response: {status: 215}}
  - {match: {safe_regex: {regex: "/p/RE/[a-z]+"}, case_sensitive: false}, direct_response: {status: 216}}
  - {match: {safe_regex: {regex: "/p/alt|/p/alt2"}}, direct_response: {status: 217}}
  - {match: {prefix: "/p/enc%20x"}, direct_response: {status: 218}}
  - {match: {prefix: /p/}, direct_response: {status: 299}}
  - {match: {prefix: /g/, grpc: {}}, direct_response: {status: 210}}
  - {match: {prefix: /g/}, direct_response: {status: 299}}
  - {match: {prefix: /tls, tls_context: {presented: false}}, direct_response: {status: 210}}
  - {match: {prefix: /tls}, direct_response: {status: 299}}
`})
	w.differ("a field that occurs several times is also matched as one value, joined by commas (RFC 9110 section 5.3)", "/h/(joined|contains) .* x-n: .* x-n: .*")
	w.differ("the media type of gRPC may have parameters, and be written in any case", "POST /g/ .*(grpc;x|Application/GRPC)")
	w.differ("a response of the route's own that is no failure stays what it is for gRPC, too", "(POST|GET) /g/ .*grpc(.proto)?")
	w.differ("methods are any token (RFC 9110 section 9.1)", "FOO .*")
	for _, h := range []string{"suf.example", "x.suf.example", "y.suf.example", "Y.SUF.Example", "y.suf.example:80", "y.suf.example:8443", "a.deep.suf.example", "a.x.deep.suf.example",
		"pre.a", "pre.", "pre.longer.x", "pre.longer.example", "pre.longer.example:80", "exact.example", "EXACT.example", "exact.example:80", "exact.example.", "a-dash.example", "-dash.example", "port.example", "port.example:8080", "[::1]", "[::1]:80", "a.com", "a.com:80", ".com", "pre.x.suf.example"} {
		w.same("/which | Host: " + h)
	}
	for _, k := range strings.Fields("exact joined prefix suffix contains regex range notrange present absent invpresent invabsent bare invbare not notempty empty isempty fold") {
		for _, v := range []string{"", "| x-n: a", "| x-n: b", "| x-n: ", "| x-n: a | x-n: b", "| x-n: b | x-n: a", "| x-n: a | x-n: ", "| x-n: a,b", "| x-n: a, b", "| x-n: 1", "| x-n: 3", "| x-n: -5", "| x-n: -6", "| x-n: +1", "| x-n: 1 | x-n: 2", "| x-n: 0x1", "| x-n: 1.0", "| x-n: ab", "| x-n: aB", "| X-N: Ab", "| x-n: 99999999999999999999", "| x-n:  1 "} {
			w.same("/h/" + k + " " + v)
		}
	}
	w.same("/h/host", "/h/host | Host: b.example", "/h/auth", "/h/auth | Host: a.example:80", "/h/path?x=1", "/h/path", "PUT /h/method", "/h/method", "/h/scheme", "/h/scheme | x-forwarded-proto: https",
		"/h/cookie | Cookie: x=y; a=b", "/h/cookie | Cookie: x=y | Cookie: a=b", "http://a.example/h/auth", "http://A.example/h/auth", "https://a.example/h/scheme")
	for _, k := range strings.Fields("exact dec regex present absent bare empty two fold enc") {
		for _, v := range []string{"", "?", "?a", "?a=", "?a=1", "?a=2", "?b&a=1", "?a=1&b", "?a=1&a=2", "?a=2&a=1", "?%61=1", "?a=%31", "?a=b%20c", "?a=b+c", "?a=12&", "?a=12x", "?&&a=1", "?a=1;b=2", "?A=1", "?a=xY", "?a%20b=1", "?a+b=1", "?a==1", "?a=1=2", "?=1", "?a=1?a=2", "?b=?a=1"} {
			w.same("/q/" + k + v)
		}
	}
	for _, k := range strings.Fields("exact not empty two") {
		for _, v := range []string{"", " | cookie: a=1", " | cookie: a=2", " | cookie: b=2; a=1", " | cookie: a=2; a=1", " | cookie: a=1; a=2", " | cookie: a=2 | cookie: a=1", " | cookie: b=2 | cookie: a=1",
			" | cookie: a=\"1\"", " | cookie: a", " | cookie: a=", " | cookie: a =1", " | cookie: a= 1", " | cookie: A=1", " | cookie: b=2;a=1", " | cookie: a=1=2; b=2"} {
			w.same("/c/" + k + v)
		}
	}
	w.same("/p/exact", "/p/exact?x", "/p/exact/", "/p/Exact", "/p/exact%20", "/p/fold", "/p/FOLD?x=1", "/p/foldpreX", "/p/sep", "/p/SEP/", "/p/SEP/x", "/p/SEPx", "/p/sep?x", "/p/sep2", "/p/sep2/", "/p/sep2//", "/p/sep2%2Fx", "/p/sep2?", "/p/sep2;x",
		"/p/re/12", "/p/re/12?x", "/p/re/12/", "/p/RE/a", "/p/re/a", "/p/alt", "/p/alt2", "/p/alt3", "/p/enc%20x", "/p/enc x", "/p/enc%20xx", "/p/enc%2520x")
	w.same("POST /g/ | content-type: application/grpc", "POST /g/ | content-type: application/grpc+proto", "POST /g/ | content-type: application/grpc-web", "POST /g/ | content-type: application/grpc;x", "POST /g/ | content-type: Application/GRPC", "GET /g/ | content-type: application/grpc", "GET /g/ | content-type: application/grpc+proto", "PUT /g/ | content-type: application/grpc-web",
		"/tls", "/nothing")
	w.same("OPTIONS /p/exact", "TRACE /p/exact", "HEAD /p/exact", "FOO /p/exact")
}
