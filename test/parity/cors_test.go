package parity

import "testing"

func TestCORS(t *testing.T) {
	w := newTwins(t, settings{filters: `- {name: envoy.filters.http.cors, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors}}`, routes: `
virtual_hosts:
- name: all
  domains: ["*"]
  routes:
  - match: {prefix: /cred}
    route: {cluster: b}
    typed_per_filter_config:
      envoy.filters.http.cors:
        "@type": type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy
        allow_origin_string_match: [{exact: "https://ok.example"}, {safe_regex: {regex: "https://[a-z]+\\.re\\.example"}}, {prefix: "http://pre"}, {suffix: ".suf"}]
        allow_methods: "GET,PUT"
        allow_headers: "x-a,x-b"
        expose_headers: "x-c"
        max_age: "60"
        allow_credentials: true
  - match: {prefix: /star}
    route: {cluster: b}
    typed_per_filter_config:
      envoy.filters.http.cors:
        "@type": type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy
        allow_origin_string_match: [{exact: "*"}]
        allow_methods: "*"
        allow_headers: "*"
        expose_headers: "*"
  - match: {prefix: /rx}
    route: {cluster: b}
    typed_per_filter_config:
      envoy.filters.http.cors:
        "@type": type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy
        allow_origin_string_match: [{safe_regex: {regex: ".*"}}]
        allow_private_network_access: true
        forward_not_matching_preflights: false
  - match: {prefix: /nofwd}
    route: {cluster: b}
    typed_per_filter_config:
      envoy.filters.http.cors:
        "@type": type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy
        allow_origin_string_match: [{exact: "https://ok.example"}]
        forward_not_matching_preflights: false
  - match: {prefix: /none}
    route: {cluster: b}
    typed_per_filter_config:
      envoy.filters.http.cors:
        "@type": type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy
        allow_methods: "GET"
  - match: {prefix: /direct}
    direct_response: {status: 206}
    typed_per_filter_config:
      envoy.filters.http.cors:
        "@type": type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy
        allow_origin_string_match: [{exact: "https://ok.example"}]
        allow_methods: "GET"
  - match: {prefix: /redir}
    redirect: {path_redirect: /x}
    typed_per_filter_config:
      envoy.filters.http.cors:
        "@type": type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy
        allow_origin_string_match: [{exact: "https://ok.example"}]
        allow_methods: "GET"
  - match: {prefix: /}
    route: {cluster: b}
`})
	w.differ("a preflight has nothing to expose", "OPTIONS /(cred|star) .*Method: .+")
	w.differ("a star stands for everything where no credentials are sent (Fetch, 3.3.4)", "OPTIONS /star .*Method: .+")
	w.differ("what the proxy answers by itself is for other origins too", ".*/(direct|redir) .*Origin: https://ok.*", ".*/redir .*Method: .+")
	w.differ("two origins stay two fields, and no origin that a pattern allows", "/.* Origin: .* Origin: .*")
	for _, p := range []string{"/cred", "/star", "/rx", "/nofwd", "/none", "/direct", "/redir", "/plain"} {
		for _, o := range []string{"https://ok.example", "https://x.re.example", "https://x.re.example.evil", "http://prefixed", "a.suf", "https://bad.example", "null", "*", "HTTPS://OK.example"} {
			w.same(p+" | Origin: "+o,
				"OPTIONS "+p+" | Origin: "+o,
				"OPTIONS "+p+" | Origin: "+o+" | Access-Control-Request-Method: PUT",
				"OPTIONS "+p+" | Origin: "+o+" | Access-Control-Request-Method: PUT | Access-Control-Request-Private-Network: true",
				"OPTIONS "+p+" | Origin: "+o+" | Access-Control-Request-Method: DELETE | Access-Control-Request-Headers: x-z",
				"OPTIONS "+p+" | Origin: "+o+" | Access-Control-Request-Method: ",
			)
		}
		w.same(p, "OPTIONS "+p+" | Access-Control-Request-Method: PUT", "OPTIONS "+p+" | Origin:  | Access-Control-Request-Method: PUT", p+" | Origin: ",
			p+" | Origin: https://ok.example | x-give: Access-Control-Allow-Origin: mine | x-give: access-control-expose-headers: theirs | x-give: access-control-allow-credentials: x",
			p+" | Origin: https://ok.example | Origin: https://bad.example", p+" | Origin: https://bad.example | Origin: https://ok.example", p+" | Origin: https://ok.example | x-answer: 503")
	}
}
