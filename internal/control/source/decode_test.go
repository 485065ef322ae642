package source

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	networking "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source/document"
)

// said renders findings as "line code field".
func said(findings []model.Finding) []string {
	var out []string
	for _, f := range findings {
		out = append(out, strings.TrimSpace(fmt.Sprintf("%d %s %s", f.Line, f.Code, f.Field)))
	}
	slices.Sort(out)
	return out
}

// TestManyMisfits: all that is wrong with the shape of an object is said at once, within a bound that is said too.
func TestManyMisfits(t *testing.T) {
	const head = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: many}\nspec:\n  hosts: [reviews]\n  http:\n"
	for n, want := range map[int]map[string]int{50: {"UnknownField": 50}, 200: {"UnknownField": 200}, 300: {"UnknownField": 200, "MoreFindings": 1}} {
		_, findings := Decode(LayerFile, "in.yaml", []byte(head+strings.Repeat("  - rout: []\n", n)))
		got := map[string]int{}
		for _, f := range findings {
			got[f.Code]++
		}
		if !maps.Equal(got, want) {
			t.Errorf("%d: %v", n, got)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	const head = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n"
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"unknown field", head + "spec:\n  prots: []\n", []string{"5 UnknownField spec.prots"}},
		{"unknown field in Istio's", "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\nspec:\n  http:\n  - match:\n    - header: {}\n",
			[]string{"7 UnknownField spec.http[0].match[0].header"}},
		{"snake case", "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\nspec: {export_to: []}\n",
			[]string{"4 UnknownField spec.export_to"}},
		{"wrong types", head + "spec:\n  ports: {}\n  selector: [a]\n  clusterIP: 3\n  publishNotReadyAddresses: maybe\n", []string{
			"5 WrongType spec.ports", "6 WrongType spec.selector", "7 WrongType spec.clusterIP", "8 WrongType spec.publishNotReadyAddresses"}},
		{"numbers", head + "spec:\n  ports:\n  - port: 99999999999\n  - port: 1.5\n  - port: '80'\n  - nodePort: 80.0\n  -\n",
			[]string{"6 InvalidValue spec.ports[0].port", "7 WrongType spec.ports[1].port", "8 WrongType spec.ports[2].port", "10 WrongType spec.ports[4]"}},
		{"leaf types", "apiVersion: v1\nkind: Pod\nmetadata: {name: a, creationTimestamp: yesterday}\nspec:\n  containers:\n  - resources: {limits: {cpu: lots}}\n",
			[]string{"3 InvalidValue metadata.creationTimestamp", "6 InvalidValue spec.containers[0].resources.limits.cpu"}},
		{"base64", "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ndata: {x: '%%%'}\n", []string{"4 InvalidValue data.x"}},
		{"enum", "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: a}\nspec:\n  mtls: {mode: SOMETIMES}\n  portLevelMtls: {80: {mode: 3}, 81: {mode: [STRICT]}}\n",
			[]string{"5 InvalidValue spec.mtls.mode", "6 InvalidValue spec.portLevelMtls.80.mode", "6 InvalidValue spec.portLevelMtls.81.mode"}},
		{"keys that are numbers", "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: a}\nspec:\n  portLevelMtls:\n    acd: {}\n    08: {}\n    -1: {}\n    4294967296: {}\n    1.5: {}\n    80: {}\n",
			[]string{"6 WrongType spec.portLevelMtls.acd", "7 WrongType spec.portLevelMtls.08", "8 WrongType spec.portLevelMtls.-1",
				"9 WrongType spec.portLevelMtls.4294967296", `10 WrongType spec.portLevelMtls["1.5"]`}},
		{"duration", "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\nspec:\n  http: [{timeout: soon}, {timeout: 7}]\n",
			[]string{"5 InvalidValue spec.http[0].timeout", "5 WrongType spec.http[1].timeout"}},
		{"one of", "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\nspec:\n  http:\n  - match:\n    - uri:\n        exact: /a\n        prefix: /b\n",
			[]string{"9 ConflictingFields spec.http[0].match[0].uri.prefix"}},
		{"wrapper", "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: a}\nspec:\n  trafficPolicy:\n    outlierDetection: {consecutive5xxErrors: many}\n",
			[]string{"6 WrongType spec.trafficPolicy.outlierDetection.consecutive5xxErrors"}},
		{"duplicate key", head + "spec:\n  type: ClusterIP\n  type: ExternalName\n", []string{"6 DuplicateKey"}},
		{"syntax", head + "spec:\n  a: [1\n  b: 2\n", []string{"5 SyntaxError"}},
		{"tab", head + "spec:\n\tports: []\n", []string{"5 SyntaxError"}},
		{"unknown kind", "\n\napiVersion: networking.istio.io/v1\nkind: VirtualServices\nmetadata: {name: a}\n", []string{"4 UnknownKind kind"}},
		{"kind for later", "apiVersion: networking.istio.io/v1\nkind: EnvoyFilter\nmetadata: {name: a}\n", []string{"2 UnsupportedKind kind"}},
		{"version", "apiVersion: networking.istio.io/v9\nkind: Gateway\nmetadata: {name: a}\n", []string{"1 UnsupportedVersion apiVersion"}},
		{"no kind", "metadata: {name: a}\n", []string{"1 MissingField apiVersion", "1 MissingField kind"}},
		{"not an object", "- a\n", []string{"1 NotAnObject"}},
		{"a word", "hello\n", []string{"1 NotAnObject"}},
		{"no name", "apiVersion: v1\nkind: Service\nmetadata: {generateName: a-}\n", []string{"3 MissingField metadata.name"}},
		{"names", "apiVersion: v1\nkind: Service\nmetadata:\n  name: a.b\n  namespace: Big\n  labels: {'a b': c, d: 'e f'}\n  annotations: {'x/y/z': a}\n", []string{
			"4 InvalidName metadata.name", "5 InvalidName metadata.namespace", `6 InvalidName metadata.labels["a b"]`,
			"6 InvalidName metadata.labels.d", "7 InvalidName metadata.annotations.x/y/z"}},
		{"cluster scoped", "apiVersion: v1\nkind: Namespace\nmetadata: {name: a, namespace: b}\n", []string{"3 InvalidValue metadata.namespace"}},
		{"twice in a file", head + "---\n" + head, []string{"7 DuplicateObject metadata.name"}},
		{"twice by another version", "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: a}\n---\napiVersion: networking.istio.io/v1beta1\nkind: Gateway\nmetadata: {name: a}\n",
			[]string{"7 DuplicateObject metadata.name"}},
		{"list items", "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Service\n  metadata: {name: a}\n- apiVersion: v1\n  kind: Nothing\n  metadata: {name: x}\n- 7\n",
			[]string{"8 UnknownKind kind", "10 NotAnObject"}},
		{"list of nothing", "apiVersion: v1\nkind: List\nitem: []\n", []string{"1 WrongType items", "3 UnknownField item"}},
		{"not text", "\xff\xfe", []string{"0 NotText"}},
		{"too deep", head + "spec: " + strings.Repeat("[", 200) + strings.Repeat("]", 200), []string{"4 TooDeep"}},
		{"bomb", head + bomb(), []string{"8 TooManyAliases"}},
		{"cycle", head + "spec: &a\n  b: *a\n", []string{"5 TooDeep"}},
		{"too large", head + "# " + strings.Repeat("x", document.MaxFileSize), []string{"0 FileTooLarge"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, findings := Decode(LayerFile, "in.yaml", []byte(c.text))
			want := slices.Sorted(slices.Values(c.want))
			if diff := cmp.Diff(want, said(findings)); diff != "" {
				t.Errorf("findings (-want +got):\n%s\n%v", diff, findings)
			}
			for _, f := range findings {
				if f.Severity != model.Error || f.File != "in.yaml" || f.Message == "" {
					t.Errorf("incomplete: %+v", f)
				}
			}
		})
	}
}

// bomb nests aliases that would expand to ten to the ninth values.
func bomb() string {
	var b strings.Builder
	b.WriteString("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n")
	for i := 1; i < 10; i++ {
		prev := strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i-1), 10), ",")
		fmt.Fprintf(&b, "a%d: &a%d [%s]\n", i, i, prev)
	}
	return b.String()
}

func TestDecodeJSONRefuses(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"syntax", "{\n \"apiVersion\": \"v1\",\n \"kind\" \"Service\"\n}", "3 SyntaxError"},
		{"cut", "{\n \"apiVersion\": \"v1\"", "2 SyntaxError"},
		{"duplicate", "{\"a\": 1,\n\"a\": 2}", "2 DuplicateKey"},
		{"unknown field", "{\"apiVersion\": \"v1\", \"kind\": \"Service\",\n\"metadata\": {\"name\": \"a\"},\n\"spec\": {\n\"x\": 1}}", "4 UnknownField spec.x"},
		{"deep", strings.Repeat("[", 300), "1 TooDeep"},
	} {
		_, findings := Decode(LayerFile, "in.json", []byte(c.text))
		if got := strings.Join(said(findings), ", "); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

func TestDecodeAccepts(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"empty", "", nil},
		{"comments and markers", "# a\n---\n# b\n---\n...\n", nil},
		{"null document", "---\nnull\n", nil},
		{"directive and marker on the first line", "%YAML 1.1\n--- {apiVersion: v1, kind: Service, metadata: {name: a}}\n", []string{"Service/default/a 2"}},
		{"windows", "\xef\xbb\xbfapiVersion: v1\r\nkind: Service\r\nmetadata:\r\n  name: a\r\n---\r\napiVersion: v1\r\nkind: Namespace\r\nmetadata: {name: b}\r\n",
			[]string{"Service/default/a 1", "Namespace/b 6"}},
		{"versions", "apiVersion: networking.istio.io/v1alpha3\nkind: VirtualService\nmetadata: {name: a}\n---\napiVersion: gateway.networking.k8s.io/v1beta1\nkind: HTTPRoute\nmetadata: {name: a}\n",
			[]string{"VirtualService.networking.istio.io/default/a 1", "HTTPRoute.gateway.networking.k8s.io/default/a 5"}},
		{"list", "apiVersion: v1\nkind: List\nmetadata: {}\nitems:\n- apiVersion: v1\n  kind: Service\n  metadata: {name: a}\n- apiVersion: v1\n  kind: Service\n  metadata: {name: b, namespace: n}\n",
			[]string{"Service/default/a 5", "Service/n/b 8"}},
		{"json", "{\"apiVersion\":\"v1\",\n\"kind\":\"Service\",\"metadata\":{\"name\":\"a\"}}\n{\"apiVersion\":\"v1\",\"kind\":\"Service\",\"metadata\":{\"name\":\"b\"}}",
			[]string{"Service/default/a 1", "Service/default/b 3"}},
		{"anchors and merge keys", "apiVersion: v1\nkind: Service\nmetadata: &m {name: a, labels: {x: y}}\nspec:\n  selector: {<<: {a: b, c: d}, a: e}\n  ports: [&p {name: x, port: 1}, {<<: *p, name: y}]\n",
			[]string{"Service/default/a 1"}},
		{"null fields", "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec:\n  ports:\nstatus: {}\n", []string{"Service/default/a 1"}},
		{"statuses of others", "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: a}\nspec: {hosts: [a.b]}\nstatus: {observedGeneration: \"1\", extra: [x], validationMessages: [{level: 3}]}\n" +
			"---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: a}\nstatus: x\n",
			[]string{"ServiceEntry.networking.istio.io/default/a 1", "HTTPRoute.gateway.networking.k8s.io/default/a 7"}},
		{"yes and no", "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {publishNotReadyAddresses: yes}\n", []string{"Service/default/a 1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			objects, findings := Decode(LayerApplied, "in", []byte(c.text))
			var got []string
			for _, o := range objects {
				got = append(got, fmt.Sprintf("%s %d", o.Key(), o.Origin.Line))
				again, found := Decode(LayerApplied, "in", o.Raw)
				if len(found) > 0 || len(again) == 0 || again[0].Key() != o.Key() {
					t.Errorf("%s: its raw text does not decode to it: %q %v", o.Key(), o.Raw, found)
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" || len(findings) > 0 {
				t.Errorf("(-want +got):\n%s\n%v", diff, findings)
			}
		})
	}
}

// TestNamespaceThatIsSaid is that of objects which name none, in their text too; one that names another is refused.
func TestNamespaceThatIsSaid(t *testing.T) {
	for text, want := range map[string]string{
		"apiVersion: v1\nkind: Service\nmetadata:\n  name: a\n  labels: {x: y}\nspec: {}\n":              "Service/shop/a",
		"{apiVersion: v1, kind: Service, metadata: {name: a}}":                                           "Service/shop/a",
		`{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "namespace": ""}}`:            "Service/shop/a",
		"apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: shop}\n":                          "Service/shop/a",
		"apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n":                                         "Namespace/a",
		"apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Service, metadata: {name: a}}\n":   "Service/shop/a",
		"apiVersion: v1\nkind: Service\nmetadata:\n  name: a\n  namespace: default\n":                    "5 OtherNamespace metadata.namespace",
		"apiVersion: v1\nkind: Service\nmetadata: {name: a}\n---\napiVersion: v1\nkind: Servce\n":        "Service/shop/a 6 UnknownKind kind",
		"apiVersion: v1\nkind: Service\nmetadata: &m {name: a}\nspec: {selector: *m}\n":                  "Service/shop/a",
		"apiVersion: v1\nkind: Service\nspec: {}\n":                                                      "1 MissingField metadata.name",
		"apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {x: y}\n":                             "4 UnknownField spec.x",
		"apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{name: b}], selector: []}\n": "4 WrongType spec.selector",
	} {
		objects, findings := Text{Layer: LayerApplied, File: "in.yaml", Namespace: "shop"}.Decode([]byte(text))
		var got []string
		for _, o := range objects {
			got = append(got, o.Key().String())
			if again, found := Decode(LayerApplied, "in.yaml", o.Raw); len(again) != 1 || len(found) > 0 || again[0].Key() != o.Key() {
				t.Errorf("%q: its text %q gives %v", text, o.Raw, found)
			}
		}
		for _, f := range findings {
			if ns := f.Object.Namespace; !slices.Contains([]string{"OtherNamespace", "UnknownKind", "MissingField"}, f.Code) && ns != "shop" {
				t.Errorf("%q: of namespace %q: %s", text, ns, f)
			}
		}
		if got := strings.Join(append(got, said(findings)...), " "); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

// TestPlainWords: a word that only the type makes a boolean is written as one, where it stands; texts stay.
func TestPlainWords(t *testing.T) {
	const head = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a, labels: {b: yes}}\nspec:\n  http:\n"
	for text, want := range map[string]string{
		"  - match: [{uri: {exact: on}, ignoreUriCase: Yes, name: üü}, {uri: {exact: off}, ignoreUriCase: off}] # yes\n": "" +
			"  - match: [{uri: {exact: on}, ignoreUriCase: true, name: üü}, {uri: {exact: off}, ignoreUriCase: false}] # yes\n",
		"  - match: [{uri: {exact: &a yes}, ignoreUriCase: *a}]\n": "  - match: [{uri: {exact: &a yes}, ignoreUriCase: *a}]\n",
		"  - match: [&m {ignoreUriCase: yes}, *m]\n":               "  - match: [&m {ignoreUriCase: true}, *m]\n",
		"  - match: [{ignoreUriCase: True}]\n":                     "  - match: [{ignoreUriCase: True}]\n",
	} {
		objects, findings := Decode(LayerFile, "in.yaml", []byte("# first\n---\n"+head+text))
		if len(findings) > 0 || string(objects[0].Raw) != head+want {
			t.Errorf("%v\n%s", findings, objects[0].Raw)
		}
		if again, found := Decode(LayerFile, "in.yaml", objects[0].Raw); len(found) > 0 || !sameContent(again[0], objects[0]) {
			t.Errorf("%v\n%s", found, objects[0].Raw)
		}
	}
	item := "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: a}, spec: {http: [{match: [{ignoreUriCase: yes}]}]}}\n"
	if objects, findings := Decode(LayerFile, "in.yaml", []byte(item)); len(findings) > 0 || !strings.Contains(string(objects[0].Raw), "ignoreUriCase: true") {
		t.Errorf("%v\n%s", findings, objects[0].Raw)
	}
}

// TestListsOfAKind are lists as List is; their items need not say their kind.
func TestListsOfAKind(t *testing.T) {
	for text, want := range map[string]string{
		"apiVersion: networking.istio.io/v1\nkind: VirtualServiceList\nmetadata: {resourceVersion: \"4\"}\nitems:\n- metadata: {name: a}\n- apiVersion: networking.istio.io/v1beta1\n  kind: VirtualService\n  metadata: {name: b}\n": "" +
			"VirtualService.networking.istio.io/default/a 5, VirtualService.networking.istio.io/default/b 6",
		`{"kind": "ServiceList", "apiVersion": "v1", "items": [{"metadata": {"name": "a"}}]}`:                                           "Service/default/a 1",
		"apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: ServiceList, items: [{metadata: {name: a}}]}\nstatus: {x: [y]}\n": "Service/default/a 4",
		"apiVersion: v1\nkind: ServiceList\nitems: []\n":                                                                                "",
		"apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleList\nitems:\n- metadata: {name: a}\n":                                     "4 LeftOut",
		"apiVersion: v1\nkind: ServicesList\nitems:\n- metadata: {name: a}\n":                                                           "4 UnknownKind kind",
		"apiVersion: v1\nkind: List\nitems:\n- metadata: {name: a}\n":                                                                   "4 MissingField apiVersion, 4 MissingField kind",
		"apiVersion: v1\nkind: ServiceList\nitems: {}\n":                                                                                "3 WrongType items",
		"apiVersion: v1\nkind: ServiceList\nitem: []\n":                                                                                 "2 UnknownKind kind",
		"apiVersion: v1\nkind: ServiceList\nitems:\n- metadata: {name: a}\n  spec:\n    x: y\n":                                         "6 UnknownField spec.x",
	} {
		objects, findings := Decode(LayerFile, "in.yaml", []byte(text))
		got := said(findings)
		for _, o := range objects {
			got = append(got, fmt.Sprintf("%s %d", o.Key(), o.Origin.Line))
			if again, found := Decode(LayerFile, "in.yaml", o.Raw); len(again) != 1 || len(found) > 0 || again[0].Key() != o.Key() {
				t.Errorf("%q: its text %q gives %v", text, o.Raw, found)
			}
		}
		if got := strings.Join(got, ", "); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

func TestGoodDocumentsStandBesideBadOnes(t *testing.T) {
	objects, findings := Decode(LayerFile, "f.yaml", []byte("apiVersion: v1\nkind: Service\nmetadata: {name: a}\n---\n: [\n---\napiVersion: v1\nkind: Service\nmetadata: {name: c}\n"))
	if len(objects) != 2 || len(findings) != 1 || findings[0].Line != 5 {
		t.Errorf("got %d objects and %v", len(objects), findings)
	}
}

func TestDecodedValues(t *testing.T) {
	objects, findings := Decode(LayerFile, "f.yaml", []byte(`apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a}
spec:
  hosts: [a]
  http:
  - fault: {delay: {percentage: {value: 100}, fixedDelay: 1m30s}}
    retries: {attempts: 2.0, retryRemoteLocalities: true}
---
apiVersion: v1
kind: Secret
metadata: {name: s}
data: {a: "aGk="}
stringData: {b: there}
---
apiVersion: v1
kind: Service
metadata: {name: s}
spec: {ports: [&p {name: x, port: 1, targetPort: web}, {<<: *p, name: y}]}
`))
	if len(objects) != 3 {
		t.Fatal(findings)
	}
	r := objects[0].Kube.(*networking.VirtualService).Spec.Http[0]
	if r.Fault.Delay.GetFixedDelay().Seconds != 90 || r.Fault.Delay.Percentage.Value != 100 || r.Retries.Attempts != 2 || !r.Retries.RetryRemoteLocalities.Value {
		t.Errorf("got %v", r)
	}
	if s := objects[1].Kube.(*corev1.Secret); string(s.Data["a"]) != "hi" || string(s.Data["b"]) != "there" {
		t.Errorf("got %v", s.Data)
	}
	if s := objects[2].Kube.(*corev1.Service); s.Spec.Ports[1].Name != "y" || s.Spec.Ports[1].Port != 1 || s.Spec.Ports[1].TargetPort.StrVal != "web" {
		t.Errorf("got %v", s.Spec.Ports)
	}
}

func TestLine(t *testing.T) {
	objects, _ := Decode(LayerFile, "f.yaml", []byte(`# comment
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: a
  annotations:
    a.b/c: d
spec:
  hosts:
  - a
  http:
  - route:
    - destination:
        host: x
      weight: 1
    - destination: {host: y}
`))
	for path, want := range map[string]int{
		"": 3, "metadata.name": 6, `metadata.annotations["a.b/c"]`: 8, "spec.hosts[0]": 11, "spec.http[0]": 13,
		"spec.http[0].route": 13, "spec.http[0].route[0].weight": 16, "spec.http[0].route[0].destination.host": 15,
		"spec.http[0].route[0].destination.subset": 14, "spec.http[0].route[1].destination.port.number": 17,
		"spec.http[7].route": 12, "spec.tcp": 9, "nonsense[": 3,
	} {
		if got := objects[0].Line(path); got != want {
			t.Errorf("%q: line %d, want %d", path, got, want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	files, _ := filepath.Glob("../../../../shared/fixtures/istio-bookinfo/*/*.yaml")
	for _, file := range files {
		if data, err := os.ReadFile(file); err == nil {
			f.Add(data)
		}
	}
	f.Add([]byte("apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: Service, metadata: {name: a}}, *x]\n"))
	f.Add([]byte(`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"a"},"data":{"a":"aGk="}}`))
	f.Add([]byte("a: &a\n  <<: *a\n---\n? [a]\n: b\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		objects, findings := Decode(LayerFile, "f.yaml", data)
		for _, o := range objects {
			if o.GetName() == "" || o.Origin.Line < 1 || len(o.Raw) == 0 || o.Line("spec.x[3].y") < 1 {
				t.Errorf("incomplete object %+v", o)
			}
			again, found := Decode(LayerFile, "f.yaml", o.Raw)
			if len(again) == 0 || again[0].Key() != o.Key() || HasErrors(found) && len(again) == 0 {
				t.Errorf("%s: raw text %q gives %v", o.Key(), o.Raw, found)
			}
		}
		for _, f := range findings {
			if f.Code == "" || f.Message == "" {
				t.Errorf("incomplete finding %+v", f)
			}
		}
	})
}

func TestHintsSayWhatToWrite(t *testing.T) {
	const head = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\nspec:\n"
	for text, want := range map[string]string{
		head + "  http: [{timeout: 7}]\n":              `a number with its unit: "7s"`,
		head + "\thttp: []\n":                          "indent with spaces",
		head + "  http: [{route: [{weight: '80'}]}]\n": "write 80, without quotes",
	} {
		_, findings := Decode(LayerFile, "a.yaml", []byte(text))
		if len(findings) != 1 || !strings.Contains(findings[0].String(), want) {
			t.Errorf("%q: %v", text, findings)
		}
	}
}

// TestSpecDecoders: protobuf's decoder makes of every document of the repository what the type's own makes.
func TestSpecDecoders(t *testing.T) {
	compared := 0
	for _, dir := range []string{"../../../examples", "../../../test", "../compile/testdata", "../generate/testdata"} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || filepath.Ext(path) != ".yaml" {
				return err
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			objects, _ := Decode(LayerFile, path, data)
			for _, o := range objects {
				spec := specOf(o.Kube)
				if spec == nil || o.Raw[0] == '{' {
					continue
				}
				text, err := yaml.YAMLToJSON(o.Raw)
				if err != nil {
					return err
				}
				other := o.Kind.New()
				if err := json.Unmarshal(text, other); err != nil {
					return err
				}
				if compared++; !proto.Equal(spec, specOf(other)) {
					t.Errorf("%s: %s: %v, not %v", path, o.Key(), spec, specOf(other))
				}
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	if compared < 20 {
		t.Errorf("%d specs were compared", compared)
	}
}
