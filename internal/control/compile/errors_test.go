package compile

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weftmesh/weft/internal/control/source"
)

// TestRefused gives each wrong spec and what is said about it, as "line severity code field". The spec starts at line 5 of the
// document.
func TestRefused(t *testing.T) {
	const istio, secure, gateway = "networking.istio.io/v1", "security.istio.io/v1", "gateway.networking.k8s.io/v1"
	for _, c := range []struct {
		name, apiVersion, kind, spec string
		want                         []string
	}{
		{"not carried", istio, "VirtualService", `
  hosts: [a]
  http:
  - corsPolicy: {allowOrigins: [{exact: "*"}], maxAge: 1.5s, allowMethods: ["a b"], allowCredentials: true}
    match: [{uri: {exact: /}, statPrefix: x}]
    delegate: {name: other}
    redirect: {uri: /}
    fault: {abort: {http2Error: x}}`, []string{
			"8 error InvalidDuration spec.http[0].corsPolicy.maxAge", "8 error InvalidValue spec.http[0].corsPolicy.allowMethods[0]",
			"8 warning AnyOrigin spec.http[0].corsPolicy.allowOrigins[0]", "9 info NoEffect spec.http[0].match[0].statPrefix",
			"10 error ConflictingFields spec.http[0].delegate",
			"12 error Unsupported spec.http[0].fault.abort.http2Error",
			"12 warning FaultNeverInjected spec.http[0].fault.abort"}},
		{"hosts", istio, "VirtualService", `
  hosts: ["*", a, a.default.svc.cluster.local, "b_!", "x.*"]
  exportTo: ["*", "."]
  http: [{directResponse: {status: 200}}]`, []string{
			"6 error DuplicateHost spec.hosts[2]", "6 error InvalidHost spec.hosts[0]", "6 error InvalidHost spec.hosts[3]",
			"6 error InvalidHost spec.hosts[4]", "7 error InvalidValue spec.exportTo[0]"}},
		{"hosts within others", istio, "VirtualService", `
  hosts: [a.b.example, "*.b.example", x.example, b.example, "*.example", reviews, "*.default.svc.cluster.local", "outbound_.15010_._.istiod.istio-system.svc.cluster.local"]
  gateways: [edge]
  http: [{directResponse: {status: 200}}]
  tls: [{match: [{sniHosts: [outbound_.15010_._.istiod.istio-system.svc.cluster.local]}], route: [{destination: {host: reviews}}]}]`, []string{
			"6 error DuplicateHost spec.hosts[0]", "6 error DuplicateHost spec.hosts[1]", "6 error DuplicateHost spec.hosts[2]", "6 error DuplicateHost spec.hosts[3]"}},
		{"names of ports", istio, "ServiceEntry", `
  hosts: [a.example, b.example]
  resolution: STATIC
  endpoints: [{address: 10.0.0.1, ports: {"@": 80}}]
  ports: [{number: 80, name: "@", protocol: HTTP}, {number: 81, name: HTTP, protocol: HTTP}]`, []string{
			`8 error InvalidName spec.endpoints[0].ports.@`, "9 error InvalidName spec.ports[0].name"}},
		{"empty", istio, "VirtualService", `
  exportTo: [Not_A_Namespace]`, []string{
			"5 error MissingField spec", "6 error InvalidValue spec.exportTo[0]"}},
		{"weights", istio, "VirtualService", `
  hosts: [a]
  http:
  - match: [{port: 1}]
    route: [{destination: {host: a}, weight: 0}, {destination: {host: b}}]
  - route:
    - {destination: {host: a}, weight: -1}
    - {destination: {host: "*"}, weight: 5}
    - {weight: 1}
    - {destination: {host: a, port: {number: 70000}}}`, []string{
			"9 error InvalidWeight spec.http[0].route", "11 error InvalidWeight spec.http[1].route[0].weight",
			"12 error InvalidHost spec.http[1].route[1].destination.host", "13 error MissingField spec.http[1].route[2].destination",
			"14 error InvalidPort spec.http[1].route[3].destination.port.number"}},
		{"actions", istio, "VirtualService", `
  hosts: [a]
  http:
  - match: [{port: 1}]
  - match: [{port: 1}]
    route: [{destination: {host: a}}]
    redirect: {uri: /x, prefixRewrite: /y, redirectCode: 200, scheme: ftp}
  - match: [{port: 1}]
    redirect: {}
    rewrite: {}
  - match: [{port: 1}]
    directResponse: {status: 99}
    mirrors: [{destination: {host: a}}]
  - match: [{port: 1}]
    redirect: {uri: "%PREFIX()%/x"}
  - route: [{destination: {host: a}}]
    rewrite: {uri: /a, uriRegexRewrite: {match: "(", rewrite: x}}`, []string{
			"8 error MissingField spec.http[0]",
			"11 error ConflictingFields spec.http[1].redirect", "11 error ConflictingFields spec.http[1].redirect.prefixRewrite",
			"11 error InvalidStatus spec.http[1].redirect.redirectCode", "11 error InvalidValue spec.http[1].redirect.scheme",
			"13 error MissingField spec.http[2].redirect", "14 error ConflictingFields spec.http[2].rewrite",
			"14 error MissingField spec.http[2].rewrite", "15 error ConflictingFields spec.http[3]",
			"16 error InvalidStatus spec.http[3].directResponse.status", "19 error Unsupported spec.http[4].redirect.uri",
			"21 error ConflictingFields spec.http[5].rewrite.uriRegexRewrite",
			"21 error InvalidRegex spec.http[5].rewrite.uriRegexRewrite.match"}},
		{"values", istio, "VirtualService", `
  hosts: [a]
  http:
  - match:
    - uri: {regex: "[a"}
    - uri: {prefix: ""}
    - uri: {}
    - uri: {exact: nope}
    - headers: {"bad name": {exact: x}}
    - sourceLabels: {"a*": b}
    - port: 65536
    route: [{destination: {host: a}}]
    timeout: 10us
    retries: {attempts: -1, retryOn: "5xx,sometimes"}
    fault:
      delay: {percentage: {value: 101}, fixedDelay: 0s}
      abort: {httpStatus: 1000, percentage: {value: -1}}
    headers: {request: {set: {"bad name": x, ok: "%REQ(x?y)% %OTHER%"}, remove: [host]}, response: {add: {a: "x\r\ny", ":status": "1"}}}
    mirror: {host: a}
    mirrors: [{destination: {host: b}}]`, []string{
			"9 error InvalidRegex spec.http[0].match[0].uri.regex", "10 error InvalidValue spec.http[0].match[1].uri.prefix",
			"12 warning PathNeverMatches spec.http[0].match[3].uri", `13 error InvalidHeaderName spec.http[0].match[4].headers["bad name"]`,
			"14 error InvalidLabel spec.http[0].match[5].sourceLabels.a*", "15 error InvalidPort spec.http[0].match[6].port",
			"17 error InvalidDuration spec.http[0].timeout", "18 error InvalidValue spec.http[0].retries.attempts",
			"18 error InvalidValue spec.http[0].retries.retryOn",
			"20 error InvalidDuration spec.http[0].fault.delay.fixedDelay", "20 error InvalidPercentage spec.http[0].fault.delay.percentage.value",
			"21 error InvalidPercentage spec.http[0].fault.abort.percentage.value", "21 error InvalidStatus spec.http[0].fault.abort.httpStatus",
			"22 error InvalidHeaderName spec.http[0].headers.request.remove[0]", `22 error InvalidHeaderName spec.http[0].headers.request.set["bad name"]`,
			"22 error InvalidHeaderName spec.http[0].headers.response.add.:status", "22 error InvalidHeaderValue spec.http[0].headers.response.add.a",
			"22 error Unsupported spec.http[0].headers.request.set.ok", "24 error ConflictingFields spec.http[0].mirrors"}},
		{"what proxies refuse", istio, "VirtualService", `
  hosts: [a]
  http:
  - match:
    - uri: {regex: '((a{1,50}){1,50}){1,5}'}
    - uri: {regex: '\Qa'}
    - headers: {":status": {exact: "1"}, ":path": {exact: /}}
    retries: {attempts: 1, retryOn: "5xx,retriable-headers,envoy-ratelimited,http3-post-connect-failure,+503,unavailable"}
    timeout: 99999h
    rewrite: {uriRegexRewrite: {match: (a), rewrite: '\1\\\2'}}
    headers:
      request: {set: {a: 50%, b: 100%% sure, c: "%protocol%", ":authority": a/b}, add: {Host: "%REQ(x)%"}}
    route: [{destination: {host: a}, weight: 2147483647}, {destination: {host: a}, weight: 2147483647}, {destination: {host: a}, weight: 2}]
  - directResponse: {status: 200, body: {string: "` + strings.Repeat("a", 64<<10+1) + `"}}`, []string{
			"9 error InvalidRegex spec.http[0].match[0].uri.regex", "10 error InvalidRegex spec.http[0].match[1].uri.regex",
			"11 error InvalidHeaderName spec.http[0].match[2].headers.:status",
			"12 error InvalidValue spec.http[0].retries.retryOn",
			"13 error InvalidDuration spec.http[0].timeout", "14 error InvalidValue spec.http[0].rewrite.uriRegexRewrite.rewrite",
			"16 error InvalidHeaderValue spec.http[0].headers.request.set.:authority", "16 error InvalidHeaderValue spec.http[0].headers.request.set.a",
			"16 error Unsupported spec.http[0].headers.request.set.c", "16 error ConflictingFields spec.http[0].headers.request.add.Host", "16 error InvalidHeaderValue spec.http[0].headers.request.add.Host",
			"17 error InvalidWeight spec.http[0].route", "18 error InvalidValue spec.http[1].directResponse.body"}},
		{"old TLS", istio, "Gateway", `
  servers:
  - port: {number: 443, name: https, protocol: HTTPS}
    hosts: ["*"]
    tls: {mode: SIMPLE, credentialName: x, minProtocolVersion: TLSV1_0, maxProtocolVersion: TLSV1_1}`, []string{
			"9 error Unsupported spec.servers[0].tls.maxProtocolVersion", "9 error Unsupported spec.servers[0].tls.minProtocolVersion"}},
		{"big patterns", secure, "AuthorizationPolicy", `
  rules:
  - from:
    - source: {namespaces: ["` + strings.Repeat("a", 1025) + `"], ipBlocks: ["::ffff:0:0/90"]}
    - source: {serviceAccounts: ["a/` + strings.Repeat("a", 1025) + `"]}
    to: [{operation: {paths: ["/{*}/` + strings.Repeat("a", 1025) + `"]}}]`, []string{
			"8 error InvalidValue spec.rules[0].from[0].source.namespaces[0]", "8 error InvalidAddress spec.rules[0].from[0].source.ipBlocks[0]",
			"9 error InvalidValue spec.rules[0].from[1].source.serviceAccounts[0]",
			"10 error InvalidValue spec.rules[0].to[0].operation.paths[0]"}},
		{"what proxies refuse of an api route", gateway, "HTTPRoute", `
  rules:
  - matches: [{path: {value: "/` + strings.Repeat("a", 1024) + `"}, queryParams: [{name: "", value: x}]}]
    filters:
    - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: a, value: "%REQ()%"}, {name: host, value: a b}]}}
    timeouts: {request: 99999h}
    backendRefs: [{name: web, port: 80, weight: 2147483647}, {name: web, port: 80, weight: 2147483647}, {name: web, port: 80, weight: 2}]`, []string{
			"7 error InvalidValue spec.rules[0].matches[0].path.value", "7 error InvalidValue spec.rules[0].matches[0].queryParams[0].name",
			"9 error Unsupported spec.rules[0].filters[0].requestHeaderModifier.set[0].value",
			"9 error InvalidHeaderValue spec.rules[0].filters[0].requestHeaderModifier.set[1].value",
			"10 error InvalidDuration spec.rules[0].timeouts.request", "11 error InvalidWeight spec.rules[0].backendRefs",
			"11 error InvalidWeight spec.rules[0].backendRefs[0].weight", "11 error InvalidWeight spec.rules[0].backendRefs[1].weight"}},
		{"layer 4", istio, "VirtualService", `
  hosts: [a.example.com]
  tcp:
  - match: [{destinationSubnets: [10.0.0.0/33], sourceSubnet: 10.0.0.0/8}]
  tls:
  - route: [{destination: {host: a}}]
  - match: [{port: 1}, {sniHosts: [b.example.com]}]
    route: [{destination: {host: a}}]`, []string{
			"8 error InvalidAddress spec.tcp[0].match[0].destinationSubnets[0]", "8 error MissingField spec.tcp[0].route",
			"8 error Unsupported spec.tcp[0].match[0].sourceSubnet", "10 error MissingField spec.tls[0].match",
			"11 error InvalidHost spec.tls[1].match[1].sniHosts[0]", "11 error MissingField spec.tls[1].match[0].sniHosts"}},
		{"destination rule", istio, "DestinationRule", `
  host: a
  workloadSelector: {matchLabels: {}}
  trafficPolicy:
    loadBalancer: {consistentHash: {minimumRingSize: 9000000}}
    connectionPool: {tcp: {maxConnections: -1}, http: {http2KeepAlive: {}}}
    outlierDetection: {maxEjectionPercent: 101, consecutiveErrors: 1}
    tls: {mode: MUTUAL}
    portLevelSettings: [{tls: {mode: SIMPLE, caCertificates: /x}}]
    tunnel: {targetHost: a, targetPort: 0}
  subsets:
  - {name: v1}
  - {name: v1, labels: {a: "*"}}
  - {name: V_2}`, []string{
			"7 warning MissingField spec.workloadSelector.matchLabels", "9 error InvalidValue spec.trafficPolicy.loadBalancer.consistentHash.minimumRingSize",
			"9 error MissingField spec.trafficPolicy.loadBalancer.consistentHash",
			"10 error InvalidValue spec.trafficPolicy.connectionPool.tcp.maxConnections",
			"10 error MissingField spec.trafficPolicy.connectionPool.http.http2KeepAlive.interval",
			"10 error MissingField spec.trafficPolicy.connectionPool.http.http2KeepAlive.timeout",
			"11 error InvalidPercentage spec.trafficPolicy.outlierDetection.maxEjectionPercent",
			"11 error Unsupported spec.trafficPolicy.outlierDetection.consecutiveErrors",
			"12 error MissingField spec.trafficPolicy.tls.credentialName", "13 error MissingField spec.trafficPolicy.portLevelSettings[0].port",
			"14 error InvalidPort spec.trafficPolicy.tunnel.targetPort", "17 error DuplicateSubset spec.subsets[1].name",
			"17 error InvalidLabel spec.subsets[1].labels.a", "18 error InvalidName spec.subsets[2].name"}},
		{"load balancing", istio, "DestinationRule", `
  host: a
  trafficPolicy:
    loadBalancer:
      consistentHash: {httpCookie: {name: "", path: "/;x", ttl: 1us}, maglev: {tableSize: 100}}
      warmup: {duration: 0s, aggression: -0.5, minimumPercent: 101}
      localityLbSetting:
        distribute:
        - {from: "*/x", to: {a/b: 50, "a/*": 49}}
        failover: [{from: a, to: a}, {from: a}, {from: a/b, to: c}]
  subsets:
  - name: v1
    trafficPolicy:
      portLevelSettings:
      - port: {number: 80}
        loadBalancer: {localityLbSetting: {failover: [{from: a, to: b}], failoverPriority: [""]}}`, []string{
			"10 error ConflictingFields spec.trafficPolicy.loadBalancer.warmup",
			"10 error InvalidPercentage spec.trafficPolicy.loadBalancer.warmup.minimumPercent",
			"10 error InvalidValue spec.trafficPolicy.loadBalancer.warmup.aggression",
			"10 error InvalidDuration spec.trafficPolicy.loadBalancer.warmup.duration",
			"11 error ConflictingFields spec.trafficPolicy.loadBalancer.localityLbSetting",
			"11 warning NoEffect spec.trafficPolicy.loadBalancer.localityLbSetting",
			"13 error InvalidValue spec.trafficPolicy.loadBalancer.localityLbSetting.distribute[0].from",
			"13 error InvalidWeight spec.trafficPolicy.loadBalancer.localityLbSetting.distribute[0].to",
			"13 error OverlappingLocality spec.trafficPolicy.loadBalancer.localityLbSetting.distribute[0].to.a/b",
			"14 error InvalidValue spec.trafficPolicy.loadBalancer.localityLbSetting.failover[0].to",
			"14 error InvalidValue spec.trafficPolicy.loadBalancer.localityLbSetting.failover[2]",
			"14 error MissingField spec.trafficPolicy.loadBalancer.localityLbSetting.failover[1]",
			"20 error ConflictingFields spec.subsets[0].trafficPolicy.portLevelSettings[0].loadBalancer.localityLbSetting",
			"20 error MissingField spec.subsets[0].trafficPolicy.portLevelSettings[0].loadBalancer.localityLbSetting.failoverPriority[0]",
			"9 error InvalidDuration spec.trafficPolicy.loadBalancer.consistentHash.httpCookie.ttl",
			"9 error InvalidValue spec.trafficPolicy.loadBalancer.consistentHash.httpCookie.path",
			"9 error InvalidValue spec.trafficPolicy.loadBalancer.consistentHash.maglev.tableSize",
			"9 error MissingField spec.trafficPolicy.loadBalancer.consistentHash.httpCookie.name",
		}},
		{"gateway", istio, "Gateway", `
  servers:
  - port: {number: 80, protocol: HTTP}
    hosts: [a, default/a, "::1"]
    tls: {mode: SIMPLE, credentialName: x}
  - port: {number: 80, name: tcp, protocol: TCP}
    hosts: ["!/x!"]
    bind: nowhere
  - port: {number: 443, name: https, protocol: HTTPS}
    hosts: []
  - port: {number: 444, name: tls, protocol: SCTP}
    hosts: ["*"]
  - port: {number: 445, name: https, protocol: HTTPS}
    hosts: ["*"]
    tls: {mode: OPTIONAL_MUTUAL, cipherSuites: [x], httpsRedirect: true}
  - port: {number: 446, name: https, protocol: HTTPS}
    hosts: ["*"]
    tls: {mode: SIMPLE, serverCertificate: /a, privateKey: /b, minProtocolVersion: TLSV1_3, maxProtocolVersion: TLSV1_2}`, []string{
			"7 error MissingField spec.servers[0].port.name", "8 error InvalidHost spec.servers[0].hosts[0]", "8 error InvalidHost spec.servers[0].hosts[1]", "9 error ConflictingFields spec.servers[0].tls",
			"10 error PortCollision spec.servers[1].port", "11 error InvalidHost spec.servers[1].hosts[0]", "11 error InvalidValue spec.servers[1].hosts[0]",
			"12 error InvalidAddress spec.servers[1].bind", "13 error MissingField spec.servers[2].tls",
			"14 error MissingField spec.servers[2].hosts", "15 error InvalidProtocol spec.servers[3].port.protocol",
			"17 error DuplicateValue spec.servers[4].port.name", "20 error DuplicateValue spec.servers[5].port.name",
			"19 error ConflictingFields spec.servers[4].tls.httpsRedirect", "19 error MissingField spec.servers[4].tls.credentialName",
			"19 error Unsupported spec.servers[4].tls.cipherSuites[0]", "22 error InvalidValue spec.servers[5].tls.minProtocolVersion",
			"22 error Unsupported spec.servers[5].tls.privateKey",
			"22 error Unsupported spec.servers[5].tls.serverCertificate"}},
		{"service entry", istio, "ServiceEntry", `
  hosts: ["*", "*.example.com"]
  addresses: [10.0.0.0/8, x]
  ports: [{number: 80, name: http, protocol: HTTP}, {number: 80, name: http}, {number: 0, name: x, protocol: UDP}]
  resolution: DNS
  subjectAltNames: [""]`, []string{
			"6 error InvalidHost spec.hosts[0]", "6 error InvalidHost spec.hosts[1]", "7 error ConflictingFields spec.addresses[0]",
			"7 error InvalidAddress spec.addresses[1]", "8 error ConflictingFields spec.ports[1].protocol", "8 error DuplicatePort spec.ports[1].name", "8 error InvalidPort spec.ports[2].number",
			"8 error InvalidProtocol spec.ports[2].protocol", "10 error MissingField spec.subjectAltNames[0]"}},
		{"service entry endpoints", istio, "ServiceEntry", `
  hosts: [a.example.com]
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: STATIC
  workloadSelector: {labels: {a: b}}
  endpoints:
  - {address: name, ports: {other: 1}}
  - {address: "unix:///x", network: n}
  - {}`, []string{
			"9 error ConflictingFields spec.workloadSelector", "11 error InvalidAddress spec.endpoints[0].address",
			"11 error PortNotFound spec.endpoints[0].ports.other",
			"12 error Unsupported spec.endpoints[1].network",
			"13 error InvalidAddress spec.endpoints[2].address", "13 error MissingField spec.endpoints[2].address"}},
		{"peer authentication", secure, "PeerAuthentication", `
  portLevelMtls: {0: {mode: STRICT}}`, []string{
			"5 error MissingField spec.selector", "6 error InvalidPort spec.portLevelMtls.0"}},
		{"authorization", secure, "AuthorizationPolicy", `
  action: CUSTOM
  provider: {name: x}
  targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: x}]
  rules:
  - from:
    - source: {requestPrincipals: ["*"]}
    - source: {}
    - source: {trustDomains: [x/y, "*.x"], notTrustDomains: ["a*b"]}
    - {}
    - source: {principals: ["a*b", ""], ipBlocks: [x], serviceAccounts: [a/b/c]}
    to:
    - operation: {ports: ["x"], paths: ["/{**}/{*}", "a/{*}", "/x{*}"]}
    - operation: {}
    when:
    - {key: "request.auth.claims[x]", values: [a]}
    - {key: source.color, values: [a]}
    - {key: source.ip, values: [a]}
    - {key: "request.headers[x", values: [a]}
    - {key: "request.headers[:status]", values: [a]}
    - {key: source.trustDomain, values: [a/b]}
    - {key: "experimental.envoy.filters.a[b]", values: [a]}
    - {key: "request.headers[:authority]", values: [a.example]}
    - {key: destination.port}`, []string{
			"6 error Unsupported spec.action", "7 error Unsupported spec.provider", "8 error Unsupported spec.targetRefs",
			"11 error Unsupported spec.rules[0].from[0].source.requestPrincipals", "12 error MissingField spec.rules[0].from[1].source",
			"13 error InvalidValue spec.rules[0].from[2].source.notTrustDomains[0]", "13 error InvalidValue spec.rules[0].from[2].source.trustDomains[0]", "14 error MissingField spec.rules[0].from[3].source",
			"15 error ConflictingFields spec.rules[0].from[4].source.serviceAccounts",
			"15 error InvalidAddress spec.rules[0].from[4].source.ipBlocks[0]", "15 error InvalidValue spec.rules[0].from[4].source.principals[0]",
			"15 error InvalidValue spec.rules[0].from[4].source.principals[1]",
			"15 error InvalidValue spec.rules[0].from[4].source.serviceAccounts[0]",
			"17 error InvalidPort spec.rules[0].to[0].operation.ports[0]", "17 error InvalidValue spec.rules[0].to[0].operation.paths[0]",
			"17 error InvalidValue spec.rules[0].to[0].operation.paths[1]", "17 error InvalidValue spec.rules[0].to[0].operation.paths[2]",
			"18 error MissingField spec.rules[0].to[1].operation", "20 error Unsupported spec.rules[0].when[0].key",
			"21 error InvalidValue spec.rules[0].when[1].key", "22 error InvalidAddress spec.rules[0].when[2].values[0]",
			"23 error InvalidValue spec.rules[0].when[3].key", "24 error InvalidValue spec.rules[0].when[4].key", "25 error InvalidValue spec.rules[0].when[5].values[0]",
			"26 error Unsupported spec.rules[0].when[6].key", "28 error MissingField spec.rules[0].when[8].values"}},
		{"api gateway", gateway, "Gateway", `
  gatewayClassName: istio
  addresses: [{value: 10.0.0.1}]
  listeners:
  - {name: a, port: 80, protocol: HTTP, tls: {}}
  - {name: a, port: 80, protocol: HTTP}
  - {name: b, port: 443, protocol: HTTPS}
  - {name: c, port: 444, protocol: HTTPS, tls: {mode: Passthrough}}
  - {name: d, port: 445, protocol: UDP, hostname: 1.2.3.4}
  - {name: e, port: 80, protocol: TCP}
  - {name: f, port: 446, protocol: TLS, tls: {options: {a/b: c}}}`, []string{
			"9 error ConflictingFields spec.listeners[0].tls",
			"10 error DuplicateListener spec.listeners[1].name",
			"11 warning InvalidCertificateRef spec.listeners[2].tls", "12 error ConflictingFields spec.listeners[3].tls.mode",
			"13 error ConflictingFields spec.listeners[4].hostname",
			"15 warning UnsupportedValue spec.listeners[6].tls.options.a/b"}},
		{"addresses", gateway, "Gateway", `
  gatewayClassName: istio
  defaultScope: Some
  infrastructure: {parametersRef: {group: a, kind: B, name: c}}
  addresses: [{value: 10.0.0.1}, {type: IPAddress, value: a}, {type: Hostname, value: a}, {type: other/kind, value: a}]
  tls: {frontend: {default: {}, perPort: [{port: 1, tls: {}}, {port: 1, tls: {}}]}}
  listeners: [{name: a, port: 80, protocol: HTTP}]`, []string{
			"7 error InvalidValue spec.defaultScope", "8 error InvalidParameters spec.infrastructure.parametersRef", "8 info NoEffect spec.infrastructure",
			"9 error InvalidAddress spec.addresses[1].value", "9 error UnsupportedAddress spec.addresses[3].type",
			"10 error DuplicatePort spec.tls.frontend.perPort[1].port"}},
		{"backend policy", gateway, "BackendTLSPolicy", `
  targetRefs: []
  options: {a/b: c}
  validation:
    hostname: "*.a.example"
    wellKnownCACertificates: Mine
    subjectAltNames: [{type: Hostname, hostname: "a_!"}, {type: URI, uri: x}, {type: Other}]`, []string{
			"6 error MissingField spec.targetRefs", "7 error Unsupported spec.options.a/b",
			"9 error InvalidHost spec.validation.hostname", "10 error InvalidValue spec.validation.wellKnownCACertificates",
			"11 error InvalidHost spec.validation.subjectAltNames[0].hostname", "11 error InvalidValue spec.validation.subjectAltNames[1].uri",
			"11 error InvalidValue spec.validation.subjectAltNames[2].type"}},
		{"call route", gateway, "GRPCRoute", `
  useDefaultGateways: Some
  rules:
  - matches:
    - method: {}
    - method: {service: a/b}
    - method: {type: Nearly, service: a}
    - method: {type: RegularExpression, method: "("}
    - headers: [{name: "a b", value: x}]
    filters:
    - {type: RequestMirror}
    backendRefs: [{name: x}]`, []string{
			"6 error InvalidValue spec.useDefaultGateways", "9 error MissingField spec.rules[0].matches[0].method",
			"10 error InvalidValue spec.rules[0].matches[1].method.service", "11 error InvalidValue spec.rules[0].matches[2].method.type",
			"12 error InvalidRegex spec.rules[0].matches[3].method.method", "13 error InvalidHeaderName spec.rules[0].matches[4].headers[0].name",
			"15 error ConflictingFields spec.rules[0].filters[0]", "16 error MissingField spec.rules[0].backendRefs[0].port"}},
		{"api route", gateway, "HTTPRoute", `
  hostnames: [1.2.3.4]
  rules:
  - matches:
    - path: {type: Exact, value: relative}
      headers: [{name: "a b", value: x}, {name: c, type: Nearly, value: x}]
    - path: {type: RegularExpression, value: "("}
    filters:
    - {type: CORS, cors: {allowOrigins: ["*", "ftp://x", "https://a.*.b"], maxAge: -1}}
    - {type: RequestMirror}
    - {type: RequestRedirect, requestRedirect: {path: {type: ReplacePrefixMatch, replacePrefixMatch: x}, statusCode: 200}}
    - {type: ExtensionRef, extensionRef: {group: a, kind: b, name: c}}
    sessionPersistence: {sessionName: "a b", type: Header, cookieConfig: {lifetimeType: Permanent}}
    timeouts: {request: 1.5s, backendRequest: 5s}
    retry: {codes: [99]}
    backendRefs: [{name: web}, {name: x, port: 80, weight: -1, filters: [{type: URLRewrite, urlRewrite: {}}]}]`, []string{
			"6 error InvalidHost spec.hostnames[0]", "9 error InvalidValue spec.rules[0].matches[0].path.value",
			"10 error InvalidHeaderName spec.rules[0].matches[0].headers[0].name", "10 error InvalidValue spec.rules[0].matches[0].headers[1].type",
			"11 error InvalidRegex spec.rules[0].matches[1].path.value", "12 error ConflictingFields spec.rules[0].filters",
			"13 error ConflictingFields spec.rules[0].filters[0].cors.allowOrigins[0]", "13 error InvalidValue spec.rules[0].filters[0].cors.allowOrigins[1]", "13 error InvalidValue spec.rules[0].filters[0].cors.allowOrigins[2]",
			"13 error InvalidValue spec.rules[0].filters[0].cors.maxAge", "14 error ConflictingFields spec.rules[0].filters[1]",
			"15 error InvalidStatus spec.rules[0].filters[2].requestRedirect.statusCode",
			"15 error InvalidValue spec.rules[0].filters[2].requestRedirect.path", "16 error Unsupported spec.rules[0].filters[3].type",
			"17 error ConflictingFields spec.rules[0].sessionPersistence.cookieConfig",
			"17 error InvalidValue spec.rules[0].sessionPersistence.sessionName", "17 error MissingField spec.rules[0].sessionPersistence.absoluteTimeout", "18 error InvalidDuration spec.rules[0].timeouts.request",
			"19 error InvalidStatus spec.rules[0].retry.codes[0]", "20 error ConflictingFields spec.rules[0].backendRefs",
			"20 error InvalidWeight spec.rules[0].backendRefs[1].weight", "20 error MissingField spec.rules[0].backendRefs[0].port",
			"20 error Unsupported spec.rules[0].backendRefs[1].filters[0]"}},
		{"service", "v1", "Service", `
  clusterIPs: [nope]
  ports: [{name: a, port: 80}, {name: a, port: 80}, {name: b, port: 0}]`, []string{
			"6 error InvalidAddress spec.clusterIPs[0]", "7 error DuplicatePort spec.ports[1].name",
			"7 error DuplicatePort spec.ports[1].port", "7 error InvalidPort spec.ports[2].port"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := fmt.Sprintf("apiVersion: %s\nkind: %s\nmetadata:\n  name: x\nspec:%s\n", c.apiVersion, c.kind, c.spec)
			objects, findings := source.Decode(source.LayerFile, "in.yaml", []byte(text))
			for _, f := range findings {
				t.Fatalf("decode: %s", f)
			}
			var got []string
			for _, f := range Check(objects[0]) {
				got = append(got, fmt.Sprintf("%d %s %s %s", f.Line, f.Severity, f.Code, f.Field))
			}
			slices.Sort(c.want)
			slices.Sort(got)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("findings (-want +got):\n%s", diff)
			}
			mesh, _ := Compile(Input{Objects: objects})
			if mesh.Services.Len()+len(mesh.RouteSets)+len(mesh.Gateways)+mesh.Destinations.Len()+len(mesh.AuthorizationPolicies)+len(mesh.PeerAuthentications) > 0 {
				t.Error("a refused object is in the mesh")
			}
		})
	}
}

// TestUnsupportedNamesTheField makes sure that a refusal says what, where and that it is not yet carried.
func TestUnsupportedNamesTheField(t *testing.T) {
	objects, _ := source.Decode(source.LayerFile, "in.yaml", []byte(`apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: x}
spec:
  hosts: [x]
  http:
  - route: [{destination: {host: x}}]
    fault: {delay: {exponentialDelay: 1s, percentage: {value: 1}}}
`))
	const want = "in.yaml:8: error: VirtualService/default/x: spec.http[0].fault.delay.exponentialDelay: not supported yet"
	for _, f := range Check(objects[0]) {
		if strings.HasPrefix(f.String(), want) {
			return
		}
	}
	t.Errorf("got %v", Check(objects[0]))
}
