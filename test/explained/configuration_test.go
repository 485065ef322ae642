package explained

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
)

// workloads are two clients, a and c, and two services, one of them in two versions. Each has ports of several kinds.
var workloads = service("b", "default", "v1", "v2") + service("a", "default", "v1") + service("c", "shop", "v1") + service("e", "shop", "v1")

func service(name, namespace string, versions ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `apiVersion: v1
kind: Service
metadata: {name: %[1]s, namespace: %[2]s}
spec:
  selector: {app: %[1]s}
  ports:
  - {name: http, port: 8000}
  - {name: tcp, port: 8001, targetPort: 8000}
  - {name: http2, port: 8003, targetPort: 8000}
  - {name: grpc, port: 8004, targetPort: 8000}
  - {name: grpc-web, port: 8005, targetPort: 8000}
---
`, name, namespace)
	for _, v := range versions {
		fmt.Fprintf(&b, `apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s-%[3]s, namespace: %[2]s}
spec:
  selector: {matchLabels: {app: %[1]s, version: %[3]s}}
  template:
    metadata: {labels: {app: %[1]s, version: %[3]s}}
    spec:
      serviceAccountName: %[1]s
      containers: [{name: echo, image: weftmesh/echo, command: [echo], ports: [{containerPort: 8000}]}]
---
`, name, namespace, v)
	}
	return b.String()
}

// draw makes configuration at random.
type draw struct{ *rand.Rand }

// one draws from a list.
func one[T any](d draw, list ...T) T { return list[d.IntN(len(list))] }

// object is a part of an object.
type object = map[string]any

// some takes each field with a probability.
func (d draw) some(p float64, fields object) object {
	out := object{}
	for _, name := range []string{"principals", "notPrincipals", "namespaces", "ipBlocks", "methods", "notMethods", "paths", "notPaths", "ports", "hosts"} {
		if v, there := fields[name]; there && d.Float64() < p {
			out[name] = v
		}
	}
	return out
}

// kinds are what is drawn, and how often.
var kinds = []struct {
	kind, group string
	probability float64
	spec        func(draw) object
}{
	{"AuthorizationPolicy", "security.istio.io/v1", .5, draw.policy},
	{"PeerAuthentication", "security.istio.io/v1", .7, draw.authentication},
	{"DestinationRule", "networking.istio.io/v1", .8, draw.destination},
	{"VirtualService", "networking.istio.io/v1", .5, draw.routes},
	{"Sidecar", "networking.istio.io/v1", .15, draw.scope},
}

// objects draws some that go together, and gives their kinds with their names.
func (d draw) objects() (names [][2]string, text string) {
	var all []string
	for _, k := range kinds {
		if d.Float64() >= k.probability {
			continue
		}
		namespace := one(d, "default", "default", "default", "istio-system", "shop")
		if k.kind == "DestinationRule" || k.kind == "VirtualService" {
			namespace = "default" // where they count for a client of the mesh
		}
		raw, err := json.Marshal(object{"apiVersion": k.group, "kind": k.kind, "metadata": object{"name": "random", "namespace": namespace}, "spec": k.spec(d)})
		if err != nil {
			panic(err) // it is made of strings and numbers
		}
		all, names = append(all, string(raw)), append(names, [2]string{k.kind, namespace + "/random"})
	}
	return names, strings.Join(all, "\n---\n")
}

// selected adds a selector, or none.
func (d draw) selected(spec object) object {
	if labels := one(d, nil, object{"app": "b"}, object{"version": "v2"}, object{"version": "v2"}, object{"version": "v2"}); labels != nil {
		spec["selector"] = object{"matchLabels": labels}
	}
	return spec
}

func (d draw) policy() object {
	rule := object{}
	if d.IntN(2) == 0 {
		source := d.some(.3, object{"principals": []string{one(d, "cluster.local/ns/default/sa/a", "*", "cluster.local/ns/shop/*")},
			"notPrincipals": []string{"cluster.local/ns/default/sa/a"}, "namespaces": []string{one(d, "default", "shop")}, "ipBlocks": []string{"10.77.0.0/16"}})
		if len(source) > 0 {
			rule["from"] = []object{{"source": source}}
		}
	}
	if d.IntN(2) == 0 {
		operation := d.some(.3, object{"methods": []string{one(d, "GET", "POST", "*")}, "notMethods": []string{"GET"}, "paths": []string{one(d, "/a", "/a*", "*")},
			"notPaths": []string{"/a"}, "ports": []string{one(d, "8000", "9")}, "hosts": []string{one(d, "b:8000", "b*")}})
		if len(operation) > 0 {
			rule["to"] = []object{{"operation": operation}}
		}
	}
	return d.selected(object{"action": one(d, "ALLOW", "DENY", "DENY"), "rules": []object{rule}})
}

func (d draw) authentication() object {
	return d.selected(object{"mtls": object{"mode": one(d, "STRICT", "STRICT", "PERMISSIVE", "DISABLE")}})
}

func (d draw) destination() object {
	tls := object{"mode": one(d, "DISABLE", "DISABLE", "ISTIO_MUTUAL", "SIMPLE")}
	if tls["mode"] == "SIMPLE" && d.IntN(2) == 0 {
		tls["insecureSkipVerify"] = true
	}
	return object{"host": one(d, "b.default.svc.cluster.local", "*.local"), "trafficPolicy": object{"tls": tls}}
}

func (d draw) routes() object {
	retries := func() object {
		r := object{"attempts": d.IntN(4)}
		if r["attempts"] != 0 && d.IntN(3) > 0 {
			r["retryOn"] = one(d, "reset", "connect-failure", "safe-reset", "5xx", "403", "503", "gateway-error,reset", "reset-before-request", "retriable-4xx")
		}
		if d.IntN(4) == 0 {
			r["retryIgnorePreviousHosts"] = false
		}
		return r
	}
	to := func(host string, weight int) object {
		return object{"destination": object{"host": host}, "weight": weight}
	}
	const b, e = "b.default.svc.cluster.local", "e.shop.svc.cluster.local"
	match := object{"uri": object{"prefix": "/a"}}
	if d.IntN(3) == 0 {
		match["method"] = object{"exact": one(d, "GET", "POST")}
	}
	if d.IntN(3) == 0 {
		match["headers"] = object{"content-type": object{"exact": one(d, "application/grpc", "application/grpc-web")}}
	}
	return object{"hosts": []string{b}, "http": []object{
		{"match": []object{match}, "route": []object{to(b, 100)}, "retries": retries()},
		{"route": one(d, []object{to(b, 100)}, []object{to(b, 50), to(e, 50)}, []object{to(e, 100)}), "retries": retries()}}}
}

func (d draw) scope() object {
	spec := object{"egress": []object{{"hosts": []string{one(d, "./*", "shop/*", "default/b.default.svc.cluster.local", "~/*")}}}}
	if d.IntN(2) == 0 {
		spec["outboundTrafficPolicy"] = object{"mode": one(d, "REGISTRY_ONLY", "ALLOW_ANY")}
	}
	if d.IntN(2) == 0 {
		spec["workloadSelector"] = object{"labels": object{"app": one(d, "a", "c")}}
	}
	return spec
}
