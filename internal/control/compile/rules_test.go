package compile

import (
	"cmp"
	"os"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

// rulesDocument holds the table that comes of TestGoldenRules.
const rulesDocument = "../../../docs/validation.md"

// TestGoldenRules holds every rule by which Istio, and the Gateway API's definitions, check objects against ours: testdata/rules.txt has one example that breaks each,
// and what we say of it stands in the document, which -update writes. Something must be said, unless the rule is marked with "accepted",
// with the reason.
func TestGoldenRules(t *testing.T) {
	text, err := os.ReadFile("testdata/rules.txt")
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	out.WriteString(rulesHead)
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if kind, ok := strings.CutPrefix(line, "# "); ok {
			out.WriteString("\n## " + kind + "\n\n| rule | example | finding |\n|---|---|---|\n")
			continue
		}
		rule, example, ok := strings.Cut(line, " :: ")
		if !ok {
			continue
		}
		example, accepted, _ := strings.Cut(example, " :: ")
		found := judge(example)
		switch {
		case len(found) == 0 && accepted == "":
			t.Errorf("nothing is said of %s: %s", rule, example)
		case len(found) > 0 && accepted != "":
			t.Errorf("%s: %s is marked as accepted, and %v is said", rule, example, found)
		case accepted != "":
			found = []string{"none: " + accepted}
		}
		if len(example) > maxExample {
			example = example[:maxExample] + "..."
		}
		out.WriteString("| " + rule + " | `" + strings.ReplaceAll(example, "|", `\|`) + "` | " + strings.Join(found, "<br>") + " |\n")
	}
	if *update {
		if err := os.WriteFile(rulesDocument, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(rulesDocument)
	if err != nil {
		t.Fatal(err)
	}
	if diff := gocmp.Diff(string(want), out.String()); diff != "" {
		t.Errorf("docs/validation.md is not current: go test ./internal/control/compile -run Golden -update (-want +got):\n%s", diff)
	}
}

// maxExample keeps examples that are long on purpose out of the page.
const maxExample = 240

const rulesHead = `# What is wrong with an object

Every rule by which Istio checks its own kinds, and Kubernetes' API server the Gateway API's, Ingresses and Services, an example that breaks it, and the finding that
Weft gives: severity, field and [code](configuration.md#codes). Fields that Weft does not carry are refused as Unsupported whatever their value. This page is written by a test.
`

// ruleGroups are the versions of kinds that are not of Istio's networking. "Gateway.k8s" stands for the Gateway API's Gateway.
var ruleGroups = map[string]string{
	"ProxyConfig": "networking.istio.io/v1beta1", "AuthorizationPolicy": "security.istio.io/v1", "PeerAuthentication": "security.istio.io/v1",
	"HTTPRoute": gatewayAPIVersion, "GRPCRoute": gatewayAPIVersion, "TLSRoute": gatewayAPIVersion, "TCPRoute": gatewayAPIVersion, "UDPRoute": gatewayAPIVersion,
	"Gateway.k8s": gatewayAPIVersion, "ListenerSet": gatewayAPIVersion, "BackendTLSPolicy": gatewayAPIVersion, "ReferenceGrant": gatewayAPIVersion,
	"Ingress": "networking.k8s.io/v1", "Service": "v1",
}

const gatewayAPIVersion = "gateway.networking.k8s.io/v1"

// judge compiles an example, KIND SPEC, in the company of a few others, and gives what is said of it.
func judge(example string) []string {
	kind, spec, _ := strings.Cut(example, " ")
	name, group := "x", cmp.Or(ruleGroups[kind], "networking.istio.io/v1")
	kind, _, _ = strings.Cut(kind, ".")
	body := "spec: " + spec
	if kind == "MeshConfig" {
		group, kind, body = "v1", "ConfigMap", "data: {mesh: '"+strings.ReplaceAll(spec, "'", "''")+"'}"
		name = "istio, namespace: istio-system"
	}
	objects, findings := source.Decode(source.LayerFile, "x.yaml", []byte("apiVersion: "+group+"\nkind: "+kind+"\nmetadata: {name: "+name+"}\n"+body+"\n"))
	company, _ := source.Decode(source.LayerFile, "company.yaml", []byte(ruleCompany))
	_, more := Compile(Input{Objects: append(company, objects...)})
	var said []string
	for _, f := range source.SortFindings(append(findings, more...)) {
		if f.File == "x.yaml" && f.Severity != model.Info {
			said = append(said, string(f.Severity)+" `"+f.Code+"` at `"+f.Field+"`")
		}
	}
	return said
}

// ruleCompany is what examples refer to.
const ruleCompany = `apiVersion: v1
kind: Service
metadata: {name: reviews}
spec: {clusterIP: 10.78.0.1, ports: [{name: http, port: 9080}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge}
spec: {selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: older}
spec: {hosts: [taken.example], http: [{route: [{destination: {host: reviews}}]}]}
---
apiVersion: v1
kind: Secret
metadata: {name: cert}
data: {}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw}
spec:
  gatewayClassName: weft
  allowedListeners: {namespaces: {from: Same}}
  listeners:
  - {name: a, port: 8080, protocol: HTTP}
  - {name: tcp, port: 8081, protocol: TCP}
  - {name: pass, port: 8443, protocol: TLS, tls: {mode: Passthrough}}
`
