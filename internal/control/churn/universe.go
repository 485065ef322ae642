package churn

import (
	"encoding/base64"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/weftmesh/weft/internal/control/source"
)

// universe is a small world of objects that have much to do with each other: few names, each in several versions.
type universe struct {
	rand     *rand.Rand
	cert     map[string][]byte // of Secrets
	versions [][]*source.Object
}

// Objects makes a small world of objects that have much to do with each other: each in several versions, without those that the
// decoder refuses. The namespaces are ns0, ns1 and istio-system; cert and key are PEM, for Secrets. Missing are the kinds of which
// there is none.
func Objects(r *rand.Rand, cert, key []byte) (versions [][]*source.Object, missing []string) {
	u := &universe{rand: r, cert: map[string][]byte{"tls.crt": cert, "tls.key": key}}
	kinds := map[string]int{}
	for _, g := range []struct {
		names []string
		make  func(name string) string
	}{
		{[]string{"s0", "s1", "s2", "s3"}, u.service}, {[]string{"e0", "e1", "e2", "e3"}, u.slice}, {[]string{"p0", "p1", "p2", "p3", "p4"}, u.pod},
		{[]string{"p0", "w0", "w1"}, u.workloadEntry}, {[]string{"x0", "x1", "x2"}, u.serviceEntry}, {[]string{"d0", "d1", "d2"}, u.destinationRule},
		{[]string{"v0", "v1", "v2", "v3"}, u.virtualService}, {[]string{"g0", "g1"}, u.istioGateway}, {[]string{"g0", "g1"}, u.apiGateway},
		{[]string{"h0", "h1"}, u.httpRoute}, {[]string{"c0"}, u.grpcRoute}, {[]string{"t0", "t1"}, u.tlsRoute}, {[]string{"t0", "t1"}, u.tcpRoute}, {[]string{"u0", "u1"}, u.udpRoute},
		{[]string{"l0", "l1"}, u.listenerSet}, {[]string{"b0", "b1"}, u.backendTLS}, {[]string{"auth"}, u.configMap},
		{[]string{"n0", "n1", "n2"}, u.sidecar}, {[]string{"q0", "q1"}, u.proxyConfig}, {[]string{"y0"}, u.workloadGroup},
		{[]string{"k0"}, u.grant}, {[]string{"cred", "cred-cacert"}, u.secret}, {[]string{"i0", "i1"}, u.ingress},
		{[]string{"a0", "a1"}, u.peerAuthentication}, {[]string{"z0", "z1"}, u.authorizationPolicy}, {[]string{"r0"}, u.rateLimit},
		{[]string{"m0"}, u.deployment},
	} {
		for _, ns := range []string{"ns0", "ns1", "istio-system"} {
			for _, name := range g.names {
				u.add(kinds, func() string { return strings.Replace(g.make(name), "{name: ", "{namespace: "+ns+", name: ", 1) })
			}
		}
	}
	for _, name := range []string{"ns0", "ns1"} {
		u.add(kinds, func() string {
			return fmt.Sprintf("apiVersion: v1\nkind: Namespace\nmetadata: {name: %s, labels: {team: %s}}\n", name, u.one("a", "b"))
		})
	}
	u.add(kinds, func() string {
		return fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {namespace: istio-system, name: istio}\ndata: {mesh: %q}\n",
			u.one("", "defaultServiceExportTo: ['.']", "ingressControllerMode: 'OFF'", "outboundTrafficPolicy: {mode: REGISTRY_ONLY}", "nonsense: 1"))
	})
	for _, kind := range []string{"GatewayClass", "IngressClass"} {
		u.add(kinds, func() string { return u.class(kind) })
	}
	for _, k := range source.Kinds() {
		switch k.Name {
		case "ServiceAccount":
		default:
			if kinds[k.RefName()] == 0 {
				missing = append(missing, k.RefName())
			}
		}
	}
	return u.versions, missing
}

// add makes up to six versions of an object.
func (u *universe) add(kinds map[string]int, make func() string) {
	var list []*source.Object
	born := time.Unix(int64(u.rand.IntN(50)), 0)
	for i := range 6 {
		file := "in.yaml"
		text := strings.Repeat("#\n", u.rand.IntN(2)) + make()
		objects, _ := source.Decode(source.LayerFile, file, []byte(text))
		for _, o := range objects {
			kinds[o.Kind.RefName()]++
			if o.Born = born; i == 5 {
				o.Born = time.Unix(int64(u.rand.IntN(50)), 0)
			}
			list = append(list, o)
		}
	}
	if len(list) > 0 {
		u.versions = append(u.versions, list)
	}
}

func (u *universe) one(list ...string) string { return list[u.rand.IntN(len(list))] }

// some joins a few of the choices, in a random order and perhaps repeated.
func (u *universe) some(most int, choice func() string) string {
	var list []string
	for range u.rand.IntN(most + 1) {
		list = append(list, choice())
	}
	return strings.Join(list, ", ")
}

// perhaps gives the text or none.
func (u *universe) perhaps(s string) string { return u.one(s, "") }

func (u *universe) host() string {
	return u.one("s0", "s1", "s2", "s3", "s0.ns0.svc.cluster.local", "s1.ns1.svc.cluster.local", "ext.example.com", "a.example.com", "nowhere", "s9.ns1")
}

func (u *universe) ns() string { return u.one("ns0", "ns1", "istio-system") }

func (u *universe) service(name string) string {
	spec := u.one(`clusterIP: 10.0.0.1, `, `clusterIP: 10.0.0.2, `, `clusterIP: None, `, `type: ExternalName, externalName: ext.example.com, `, ``)
	ports := u.one(`{name: http, port: 80}`, `{name: http, port: 80}, {name: tcp-db, port: 3306, targetPort: 3307}`, `{name: tcp-db, port: 3306}`,
		`{name: tls, port: 443}, {name: http, port: 80}`, `{name: http, port: 80}, {name: http, port: 80}`, `{name: http, port: 80}, {name: udp, port: 80, targetPort: 8080, protocol: UDP}`)
	return fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata: {name: %s, labels: {%s}, annotations: {%s}}\nspec: {%sselector: {app: w%d}, ports: [%s]}\n", name,
		u.one("", "", "experimental.istio.io/disable-gateway-port-translation: ''"), u.one("", "", "networking.istio.io/exportTo: ns0"), spec, u.rand.IntN(2), ports)
}

func (u *universe) slice(name string) string {
	endpoint := func() string {
		return fmt.Sprintf("{addresses: [10.1.0.%d], conditions: {ready: %s}%s}", u.rand.IntN(5), u.one("true", "false"),
			u.one("", ", targetRef: {kind: Pod, name: p0}", ", targetRef: {kind: Pod, name: p1}", ", targetRef: {kind: Pod, name: p2}, zone: z1"))
	}
	return fmt.Sprintf("apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: %s, labels: {kubernetes.io/service-name: s%d}}\naddressType: IPv4\nports: [%s]\nendpoints: [%s]\n",
		name, u.rand.IntN(4), u.one("{name: http, port: 8080}", "{name: http, port: 8080}, {name: tcp-db, port: 3307}", "{name: tcp-db, port: 3307}", "{name: udp, port: 8080, protocol: UDP}, {name: http, port: 8080}"), u.some(3, endpoint))
}

func (u *universe) pod(name string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: %s, labels: {app: w%d, %s}}\nspec: {%scontainers: [{name: x, ports: [%s]}]}\nstatus: {phase: %s, podIP: 10.1.0.%d}\n",
		name, u.rand.IntN(2), u.one("istio: ingressgateway", "version: v1", "topology.kubernetes.io/region: r"), u.one("", "", "hostNetwork: true, "),
		u.one("{containerPort: 8080}", "{containerPort: 3307}", ""), u.one("Running", "Running", "Failed"), u.rand.IntN(5))
}

func (u *universe) deployment(name string) string {
	labels := fmt.Sprintf("app: w%d, version: %s", u.rand.IntN(2), u.one("v1", "v2", "one"))
	return fmt.Sprintf("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: %s}\nspec: {%sselector: {matchLabels: {%s}}, template: {metadata: {labels: {%s}}, spec: {containers: [{name: x, image: x, command: [x]}]}}}\n",
		name, u.one("", "replicas: 0, "), labels, labels)
}

func (u *universe) workloadEntry(name string) string {
	return fmt.Sprintf("apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: %s, labels: {a: b}}\nspec: {address: %s, labels: {app: w%d}, ports: {%s}}\n",
		name, u.one("10.1.0.1", "10.1.0.2", "vm.example.com"), u.rand.IntN(2), u.one("", "http: 8081", "http: 99999"))
}

func (u *universe) serviceEntry(name string) string {
	how := u.one("resolution: DNS", "resolution: NONE, location: MESH_EXTERNAL", "resolution: STATIC, endpoints: [{address: 10.1.0.3}, {address: 10.1.0.4, ports: {http: 9090}}]",
		"resolution: STATIC, workloadSelector: {labels: {app: w0}}", "resolution: STATIC, workloadSelector: {labels: {app: w1}}, location: MESH_INTERNAL")
	return fmt.Sprintf("apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: %s}\nspec: {hosts: [%s], %s, addresses: [%s], ports: [%s], exportTo: [%s]}\n", name,
		u.one("ext.example.com", "a.example.com, ext.example.com", "'*.example.com'", "s0.ns0.svc.cluster.local", "s2, s9.ns1"), how,
		u.some(1, func() string { return u.one("10.0.0.1", "10.0.0.2") }),
		u.one("{name: http, number: 80, protocol: HTTP}", "{name: tcp-db, number: 3306, protocol: TCP}"), u.one("", "'*'", "."))
}

func (u *universe) destinationRule(name string) string {
	return fmt.Sprintf("apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: %s}\nspec: {host: %s, subsets: [%s]%s%s}\n", name,
		u.one(u.host(), "s0", "'*.example.com'", "'*.ns0.svc.cluster.local'"),
		u.one("", "{name: v1, labels: {version: v1}}", "{name: v1, labels: {version: one}}, {name: v2, labels: {version: v2}}"),
		u.one("", ", trafficPolicy: {tls: {mode: MUTUAL, credentialName: cred}}", ", trafficPolicy: {tls: {mode: SIMPLE, credentialName: absent}}"),
		u.one("", "", ", exportTo: [.]", ", exportTo: [ns1]", ", workloadSelector: {matchLabels: {app: w0}}"))
}

func (u *universe) virtualService(name string) string {
	route := func() string {
		return fmt.Sprintf("{%sroute: [{destination: {host: %s%s}}]}", u.one("", "match: [{uri: {prefix: /a}}], ", "match: [{port: 3306}], "), u.host(),
			u.one("", ", subset: v1", ", subset: v2", ", port: {number: 80}"))
	}
	delegate := fmt.Sprintf("{match: [{uri: {prefix: %s}}], delegate: {name: v%d, namespace: %s}}", u.one("/", "/b"), u.rand.IntN(4), u.ns())
	hosts := u.one("", "hosts: ["+u.host()+"], ", "hosts: ["+u.host()+"], ", "hosts: [s0], ", "hosts: ['*.example.com'], ")
	gateways := ""
	if hosts != "" {
		gateways = u.one("", "", "gateways: [g0], ", "gateways: [mesh, ns1/g0], ", "gateways: [ns0/g1], ")
	}
	return fmt.Sprintf("apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: %s}\nspec: {%s%shttp: [%s]%s}\n", name, hosts, gateways,
		u.one(route(), route(), delegate, delegate+", "+route()), u.one("", "", ", exportTo: [.]", ", exportTo: [ns1]", ", exportTo: [ns0, ns1]"))
}

func (u *universe) istioGateway(name string) string {
	server := func() string {
		return u.one("{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}", "{port: {number: 80, name: tcp, protocol: TCP}, hosts: ['*']}",
			"{port: {number: 443, name: https, protocol: HTTPS}, hosts: [ext.example.com], tls: {mode: SIMPLE, credentialName: cred}}",
			"{port: {number: 443, name: https, protocol: HTTPS}, hosts: ['ns0/*.example.com'], tls: {mode: MUTUAL, credentialName: cred}}")
	}
	return fmt.Sprintf("apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: %s}\nspec: {selector: {%s}, servers: [%s%s]}\n", name,
		u.one("istio: ingressgateway", "app: w0"), server(), u.perhaps(", "+server()))
}

func (u *universe) apiGateway(name string) string {
	allowed := u.one("", ", allowedRoutes: {namespaces: {from: All}}", ", allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {team: a}}}}")
	listener := func(n string) string {
		return "{name: " + n + ", " + u.one("port: 80, protocol: HTTP", "port: 81, protocol: HTTP, hostname: '*.example.com'", "port: 3306, protocol: TCP", "port: 80, protocol: UDP",
			"port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: cred}]}", "port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: cred, namespace: ns1}]}",
			"port: 8443, protocol: TLS, tls: {mode: Passthrough}") + allowed + "}"
	}
	return fmt.Sprintf("apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: %s}\nspec: {gatewayClassName: %s, %slisteners: [%s%s]}\n", name,
		u.one("weft", "weft", "theirs"), u.one("", "allowedListeners: {namespaces: {from: All}}, ", "allowedListeners: {namespaces: {from: Same}}, ", "defaultScope: All, "),
		listener("one"), u.perhaps(", "+listener("two")))
}

func (u *universe) listenerSet(name string) string {
	listener := u.one("port: 80, protocol: HTTP", "port: 81, protocol: HTTP, hostname: '*.example.com'", "port: 81, protocol: HTTP, hostname: a.example.com",
		"port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: cred}]}")
	return fmt.Sprintf("apiVersion: gateway.networking.k8s.io/v1\nkind: ListenerSet\nmetadata: {name: %s}\nspec: {parentRef: {name: g0, namespace: %s}, listeners: [{name: one, %s, allowedRoutes: {namespaces: {from: All}}}]}\n",
		name, u.ns(), listener)
}

func (u *universe) backendTLS(name string) string {
	return fmt.Sprintf("apiVersion: gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy\nmetadata: {name: %s}\nspec: {targetRefs: [{group: '', kind: Service, name: s%d%s}], validation: {hostname: a.example.com, %s}}\n",
		name, u.rand.IntN(3), u.one("", ", sectionName: http"), u.one("wellKnownCACertificates: System", "caCertificateRefs: [{group: '', kind: ConfigMap, name: auth}]"))
}

func (u *universe) sidecar(name string) string {
	host := func() string {
		return "'" + u.one("./", "*/", "ns0/") + u.one("*", u.host(), "s0.ns0.svc.cluster.local") + "'"
	}
	bound := func() string {
		return fmt.Sprintf("{port: {number: %s, protocol: %s}, captureMode: NONE, hosts: [%s]}, ", u.one("80", "443", "3306"), u.one("HTTP", "TCP"), host())
	}
	return fmt.Sprintf("apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: %s}\nspec: {%segress: [%s{hosts: [%s]}]}\n", name,
		u.one("", "workloadSelector: {labels: {app: w0}}, ", "workloadSelector: {labels: {version: v1}}, "), u.perhaps(bound()), host()+u.perhaps(", "+host()))
}

func (u *universe) proxyConfig(name string) string {
	return fmt.Sprintf("apiVersion: networking.istio.io/v1beta1\nkind: ProxyConfig\nmetadata: {name: %s}\nspec: {%sconcurrency: %d}\n", name,
		u.one("", "selector: {matchLabels: {app: w0}}, "), u.rand.IntN(3))
}

func (u *universe) workloadGroup(name string) string {
	return fmt.Sprintf("apiVersion: networking.istio.io/v1\nkind: WorkloadGroup\nmetadata: {name: %s}\nspec: {template: {serviceAccount: %s}}\n", name, u.one("a", "b"))
}

func (u *universe) configMap(name string) string {
	data := u.one("", "ca.crt: nonsense", fmt.Sprintf("ca.crt: %q", u.cert["tls.crt"]))
	return fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s}\ndata: {%s}\n", name, data)
}

func (u *universe) class(kind string) string {
	controller := u.one("weft.dev/gateway-controller", "example.com/other")
	if kind == "IngressClass" {
		return "apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {name: theirs}\nspec: {controller: " + controller + "}\n"
	}
	return "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: theirs}\nspec: {controllerName: " + controller + "}\n"
}

func (u *universe) parents() string {
	parent := func() string {
		return u.one("{name: g0}", "{name: l0, kind: ListenerSet}", "{name: l1, kind: ListenerSet, namespace: ns0}", "{name: g0, namespace: ns0}", "{name: g1, namespace: ns1, sectionName: one}", "{name: s0, kind: Service, group: ''}",
			"{name: s1, namespace: ns1, kind: Service, group: '', port: 80}", "{name: s1, namespace: ns0, kind: Service, group: '', port: 3306}")
	}
	if u.rand.IntN(6) == 0 {
		return "useDefaultGateways: All"
	}
	return "parentRefs: [" + parent() + u.perhaps(", "+parent()) + "]"
}

func (u *universe) backends() string {
	return fmt.Sprintf("backendRefs: [{name: s%d, port: %s}, {name: s0, namespace: %s, port: 80}]", u.rand.IntN(5), u.one("80", "3306"), u.ns())
}

func (u *universe) apiRoute(kind, name, spec string) string {
	return fmt.Sprintf("apiVersion: gateway.networking.k8s.io/v1\nkind: %s\nmetadata: {name: %s}\nspec: {%s, %s}\n", kind, name, u.parents(), spec)
}

func (u *universe) httpRoute(name string) string {
	return u.apiRoute("HTTPRoute", name, u.one("", "hostnames: [a.example.com], ")+"rules: [{"+u.backends()+"}]")
}

func (u *universe) grpcRoute(name string) string {
	return u.apiRoute("GRPCRoute", name, "rules: [{"+u.backends()+"}]")
}

func (u *universe) tlsRoute(name string) string {
	return u.apiRoute("TLSRoute", name, "hostnames: ["+u.one("a.example.com", "ext.example.com, a.example.com")+"], rules: [{"+u.backends()+"}]")
}

func (u *universe) tcpRoute(name string) string {
	return u.apiRoute("TCPRoute", name, "rules: [{"+u.backends()+"}]")
}

func (u *universe) udpRoute(name string) string {
	return u.apiRoute("UDPRoute", name, "rules: [{"+u.backends()+"}]")
}

func (u *universe) grant(name string) string {
	return fmt.Sprintf("apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: {name: %s}\nspec: {from: [{group: gateway.networking.k8s.io, kind: %s, namespace: %s}], to: [{group: '', kind: %s}]}\n",
		name, u.one("HTTPRoute", "Gateway", "TCPRoute"), u.ns(), u.one("Service", "Secret"))
}

func (u *universe) secret(name string) string {
	data := map[string][]byte{}
	for k, v := range u.cert {
		if u.rand.IntN(5) > 0 {
			data[k] = v
		}
	}
	if u.rand.IntN(2) == 0 {
		data[u.one("ca.crt", "cacert")] = u.cert["tls.crt"]
	}
	text := fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: %s}\ndata:\n", name)
	for _, k := range slices.Sorted(maps.Keys(data)) {
		text += fmt.Sprintf("  %s: %s\n", k, base64.StdEncoding.EncodeToString(data[k]))
	}
	return text
}

func (u *universe) ingress(name string) string {
	path := fmt.Sprintf("{path: /%s, pathType: Prefix, backend: {service: {name: s%d, port: {%s}}}}", u.one("a", "b"), u.rand.IntN(4), u.one("number: 80", "name: http"))
	return fmt.Sprintf("apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: %s}\nspec: {ingressClassName: %s, %srules: [{host: %s, http: {paths: [%s]}}]}\n", name,
		u.one("weft", "theirs"), u.one("", "tls: [{secretName: cred, hosts: [a.example.com]}], ", "defaultBackend: {service: {name: s1, port: {number: 80}}}, "),
		u.one("a.example.com", "b.example.com"), path)
}

func (u *universe) peerAuthentication(name string) string {
	return fmt.Sprintf("apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: %s}\nspec: {%smtls: {mode: %s}}\n", name,
		u.one("", "", "selector: {matchLabels: {app: w0}}, "), u.one("STRICT", "PERMISSIVE"))
}

func (u *universe) authorizationPolicy(name string) string {
	return fmt.Sprintf("apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: %s}\nspec: {%saction: %s, rules: [{to: [{operation: {%s}}]}]}\n", name,
		u.one("", "selector: {matchLabels: {app: w0}}, "), u.one("ALLOW", "DENY"), u.one("methods: [GET]", "ports: ['80']", "paths: [/x]"))
}

func (u *universe) rateLimit(name string) string {
	return fmt.Sprintf("apiVersion: networking.weft.dev/v1alpha1\nkind: RateLimit\nmetadata: {name: %s}\nspec: {%s}\n", name,
		u.one("service: {host: s0, port: 80, domain: d}, rules: [{name: all, descriptor: [{key: a, value: b}]}]", "service: {host: s9, port: 80, domain: d}, rules: [{name: all, descriptor: [{key: a, value: b}]}]",
			"rules: [{name: all, limit: {requests: 5, per: 1s}}]"))
}
