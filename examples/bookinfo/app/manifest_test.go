package app_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/weftmesh/weft/examples/bookinfo/app"
)

// object is as much of a Kubernetes object as these tests compare.
type object struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name string `json:"name"`
	} `json:"metadata"`
	Spec struct {
		// Selector is a Deployment's, Service's, Gateway's or policy's; their shapes differ.
		Selector any `json:"selector"`
		Template struct {
			Metadata struct {
				Labels map[string]string `json:"labels"`
			} `json:"metadata"`
			Spec struct {
				ServiceAccountName string      `json:"serviceAccountName"`
				Containers         []container `json:"containers"`
			} `json:"spec"`
		} `json:"template"`
		Host       string          `json:"host"`
		Hosts      []string        `json:"hosts"`
		Subsets    []subset        `json:"subsets"`
		HTTP       []virtualRoute  `json:"http"`
		Rules      []gatewayOrRule `json:"rules"`
		ParentRefs []backend       `json:"parentRefs"`
	} `json:"spec"`
}

type container struct {
	Command []string `json:"command"`
	Env     []struct {
		Name, Value string
	} `json:"env"`
	Ports []struct {
		ContainerPort int `json:"containerPort"`
	} `json:"ports"`
	ReadinessProbe struct {
		HTTPGet struct {
			Path string `json:"path"`
			Port int    `json:"port"`
		} `json:"httpGet"`
	} `json:"readinessProbe"`
}

type subset struct {
	Name   string            `json:"name"`
	Labels map[string]string `json:"labels"`
}

type virtualRoute struct {
	Match []struct {
		URI map[string]string `json:"uri"`
	} `json:"match"`
	Route []struct {
		Destination struct {
			Host   string `json:"host"`
			Subset string `json:"subset"`
		} `json:"destination"`
		Weight *int `json:"weight"`
	} `json:"route"`
}

// gatewayOrRule is an HTTPRoute's or an AuthorizationPolicy's rule.
type gatewayOrRule struct {
	BackendRefs []backend `json:"backendRefs"`
	From        []struct {
		Source struct {
			Principals []string `json:"principals"`
		} `json:"source"`
	} `json:"from"`
}

type backend struct {
	Kind   string `json:"kind"`
	Name   string `json:"name"`
	Port   int    `json:"port"`
	Weight *int   `json:"weight"`
}

// objects reads every document of the files that match the patterns, which are relative to examples/bookinfo.
func objects(t *testing.T, patterns ...string) []object {
	t.Helper()
	var all []object
	for _, pattern := range patterns {
		files, err := filepath.Glob(filepath.Join("..", pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("no file %s (%v)", pattern, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, doc := range bytes.Split(text, []byte("\n---\n")) {
				var o object
				if err := yaml.Unmarshal(doc, &o); err != nil {
					t.Fatalf("%s: %v", file, err)
				}
				if o.APIVersion == "" || o.Kind == "" || o.Metadata.Name == "" {
					t.Errorf("%s: object without apiVersion, kind or name", file)
				}
				all = append(all, o)
			}
		}
	}
	return all
}

func ofKind(all []object, kind string) []object {
	return slices.DeleteFunc(slices.Clone(all), func(o object) bool { return o.Kind != kind })
}

func names(all []object) []string {
	var out []string
	for _, o := range all {
		out = append(out, o.Metadata.Name)
	}
	slices.Sort(out)
	return out
}

func labels(selector any) map[string]any {
	m, _ := selector.(map[string]any)
	if inner, ok := m["matchLabels"].(map[string]any); ok {
		return inner
	}
	return m
}

// selects reports whether some Deployment's pods have all the labels.
func selects(deployments []object, want map[string]any) bool {
	return len(want) > 0 && slices.ContainsFunc(deployments, func(d object) bool {
		for key, value := range want {
			if d.Spec.Template.Metadata.Labels[key] != value {
				return false
			}
		}
		return true
	})
}

func TestManifestRunsFourServices(t *testing.T) {
	all := objects(t, "bookinfo.yaml")
	deployments, services, accounts := ofKind(all, "Deployment"), ofKind(all, "Service"), ofKind(all, "ServiceAccount")
	if got, want := names(services), []string{"details", "productpage", "ratings", "reviews"}; !slices.Equal(got, want) {
		t.Errorf("services %v, want %v", got, want)
	}
	want := []string{"details-v1", "productpage-v1", "ratings-v1", "reviews-v1", "reviews-v2", "reviews-v3"}
	if got := names(deployments); !slices.Equal(got, want) {
		t.Errorf("deployments %v, want %v", got, want)
	}
	if len(all) != len(deployments)+len(services)+len(accounts) {
		t.Errorf("%d objects: more than deployments, services and accounts", len(all))
	}
	for _, s := range services {
		if !selects(deployments, labels(s.Spec.Selector)) {
			t.Errorf("service %s selects nothing", s.Metadata.Name)
		}
	}
	for _, d := range deployments {
		checkDeployment(t, d, names(accounts))
	}
}

func checkDeployment(t *testing.T, d object, accounts []string) {
	pod, name := d.Spec.Template, d.Metadata.Name
	if !selects([]object{d}, labels(d.Spec.Selector)) {
		t.Errorf("%s does not select its own pods", name)
	}
	if !slices.Contains(accounts, pod.Spec.ServiceAccountName) {
		t.Errorf("%s: no service account %q", name, pod.Spec.ServiceAccountName)
	}
	if len(pod.Spec.Containers) != 1 {
		t.Fatalf("%s has %d containers", name, len(pod.Spec.Containers))
	}
	c := pod.Spec.Containers[0]
	service, version := pod.Metadata.Labels["app"], pod.Metadata.Labels["version"]
	if !slices.Equal(c.Command, []string{"bookinfo", service}) || name != service+"-"+version {
		t.Errorf("%s: command %v, labels %v", name, c.Command, pod.Metadata.Labels)
	}
	if len(c.Env) != 1 || c.Env[0].Name != "SERVICE_VERSION" || c.Env[0].Value != version {
		t.Errorf("%s: environment %v, want SERVICE_VERSION %s", name, c.Env, version)
	}
	probe := c.ReadinessProbe.HTTPGet
	if len(c.Ports) != 1 || c.Ports[0].ContainerPort != 9080 || probe.Port != 9080 || probe.Path != "/health" {
		t.Errorf("%s: ports %v, probe %v", name, c.Ports, probe)
	}
	if _, err := app.New(service, app.Config{Version: version}); err != nil {
		t.Errorf("%s: %v", name, err)
	}
}

// Each file to try must work on top of what `weft up examples/bookinfo` starts.
func TestFilesToTryReferToWhatRuns(t *testing.T) {
	base := objects(t, "*.yaml")
	deployments, accounts := ofKind(base, "Deployment"), names(ofKind(base, "ServiceAccount"))
	services := names(ofKind(append(base, objects(t, "try/gateway-api/versions.yaml")...), "Service"))
	subsets := map[string]map[string]string{} // labels by host/subset
	for _, rule := range ofKind(base, "DestinationRule") {
		for _, s := range rule.Spec.Subsets {
			subsets[rule.Spec.Host+"/"+s.Name] = s.Labels
			if !selects(deployments, map[string]any{"app": rule.Spec.Host, "version": s.Labels["version"]}) {
				t.Errorf("subset %s of %s has no deployment", s.Name, rule.Spec.Host)
			}
		}
	}
	for _, o := range append(base, objects(t, "try/*.yaml", "try/gateway-api/*.yaml")...) {
		at := o.Kind + " " + o.Metadata.Name
		for _, route := range o.Spec.HTTP {
			checkVirtualRoute(t, at, route, services, subsets)
		}
		for _, rule := range o.Spec.Rules {
			checkRule(t, at, rule, services, accounts)
		}
		if o.Kind == "AuthorizationPolicy" && !selects(deployments, labels(o.Spec.Selector)) {
			t.Errorf("%s selects nothing", at)
		}
	}
}

func checkVirtualRoute(t *testing.T, at string, route virtualRoute, services []string, subsets map[string]map[string]string) {
	weights := 0
	for _, to := range route.Route {
		host, subset := to.Destination.Host, to.Destination.Subset
		if !slices.Contains(services, host) || subset != "" && subsets[host+"/"+subset] == nil {
			t.Errorf("%s: no destination %s/%s", at, host, subset)
		}
		if to.Weight == nil && len(route.Route) > 1 {
			t.Errorf("%s: several destinations, one without weight", at)
		} else if to.Weight != nil {
			weights += *to.Weight
		}
	}
	if weights != 0 && weights != 100 {
		t.Errorf("%s: weights add up to %d", at, weights)
	}
}

func checkRule(t *testing.T, at string, rule gatewayOrRule, services, accounts []string) {
	for _, to := range rule.BackendRefs {
		if !slices.Contains(services, to.Name) || to.Port != 9080 {
			t.Errorf("%s: no backend %s:%d", at, to.Name, to.Port)
		}
	}
	for _, from := range rule.From {
		for _, principal := range from.Source.Principals {
			account, ok := strings.CutPrefix(principal, "cluster.local/ns/default/sa/")
			if !ok || !slices.Contains(accounts, account) {
				t.Errorf("%s: no principal %s", at, principal)
			}
		}
	}
}

// What the gateway lets in, productpage serves.
func TestGatewayRoutesToPagesThatExist(t *testing.T) {
	s := openShop(t, "v1")
	paths := 0
	for _, o := range ofKind(objects(t, "gateway.yaml"), "VirtualService") {
		for _, route := range o.Spec.HTTP {
			for _, match := range route.Match {
				path := match.URI["exact"] + match.URI["prefix"]
				if path == "/static" {
					path += "/bookinfo.css"
				}
				method := "GET"
				if path == "/login" {
					method = "POST"
				}
				paths++
				if got := s.do(method, "http://productpage:9080"+path, "", nil); got.status == 404 || got.status == 405 {
					t.Errorf("%s: status %d", path, got.status)
				}
			}
		}
	}
	if paths != 6 {
		t.Errorf("%d paths, want 6", paths)
	}
}
