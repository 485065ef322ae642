package compile

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

// pair makes a certificate and its key, as PEM.
func pair(t *testing.T) (certificate, key []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"a.example.com"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
}

func secretYAML(namespace, name string, data map[string][]byte) string {
	text := fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: %s, namespace: %s}\ndata:\n", name, namespace)
	for _, k := range parts.SortedKeys(data) {
		text += fmt.Sprintf("  %s: %s\n", k, base64.StdEncoding.EncodeToString(data[k]))
	}
	return text + "---\n"
}

// TestMissingCredentialIsToldOnce: an object that names a Secret for several hosts has one thing to answer for.
func TestMissingCredentialIsToldOnce(t *testing.T) {
	objects, findings := source.Decode(source.LayerApplied, "in.yaml", []byte(`apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gw}
spec:
  servers:
  - {port: {number: 443, name: a, protocol: HTTPS}, hosts: [a.example.com], tls: {mode: SIMPLE, credentialName: missing}}
  - {port: {number: 443, name: b, protocol: HTTPS}, hosts: [b.example.com], tls: {mode: SIMPLE, credentialName: missing}}
  - {port: {number: 443, name: c, protocol: HTTPS}, hosts: [c.example.com], tls: {mode: SIMPLE, credentialName: other}}
`))
	if len(findings) > 0 {
		t.Fatal(findings)
	}
	_, findings = Compile(Input{Objects: objects})
	var got []string
	for _, f := range findings {
		got = append(got, fmt.Sprintf("%s %s", f.Code, f.Field))
	}
	if want := []string{"CredentialNotFound spec.servers[0].tls.credentialName", "CredentialNotFound spec.servers[2].tls.credentialName"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestSeveralCredentials gives a server the certificates of all Secrets that are there, and the authority of the first.
func TestSeveralCredentials(t *testing.T) {
	rsa, rsaKey := pair(t)
	ecdsa, ecdsaKey := pair(t)
	gateway := func(mode string) string {
		return `apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gw}
spec:
  servers:
  - {port: {number: 443, name: a, protocol: HTTPS}, hosts: [a.example.com], tls: {mode: ` + mode + `, credentialNames: [rsa, ecdsa]}}
`
	}
	first := secretYAML("default", "rsa", map[string][]byte{"tls.crt": rsa, "tls.key": rsaKey, "ca.crt": ecdsa})
	second := secretYAML("default", "ecdsa", map[string][]byte{"tls.crt": ecdsa, "tls.key": ecdsaKey, "ca.crt": rsa})
	for name, c := range map[string]struct {
		text, findings string
		shown          [][]byte
		ca             []byte
	}{
		"both":   {first + second + gateway("SIMPLE"), "", [][]byte{rsa, ecdsa}, nil},
		"mutual": {first + second + gateway("MUTUAL"), "", [][]byte{rsa, ecdsa}, ecdsa},
		"one absent": {second + gateway("SIMPLE"), "CredentialNotFound spec.servers[0].tls.credentialNames[0]: the other certificates of the list are shown",
			[][]byte{ecdsa}, nil},
		"all absent": {gateway("SIMPLE"), "CredentialNotFound spec.servers[0].tls.credentialNames[0]: TLS connections fail" +
			"CredentialNotFound spec.servers[0].tls.credentialNames[1]: TLS connections fail", [][]byte{nil}, nil},
		"authority absent": {second + gateway("MUTUAL"), "CredentialNotFound spec.servers[0].tls.credentialNames[0]: TLS connections fail", [][]byte{ecdsa}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			objects, findings := source.Decode(source.LayerApplied, "in.yaml", []byte(c.text))
			if len(findings) > 0 {
				t.Fatal(findings)
			}
			mesh, findings := Compile(Input{Objects: objects})
			var said string
			for _, f := range findings {
				_, effect, _ := strings.Cut(f.Message, ":")
				said += fmt.Sprintf("%s %s:%s", f.Code, f.Field, effect)
			}
			if said != c.findings || len(mesh.Gateways) != 1 {
				t.Fatalf("%d gateways, findings %q", len(mesh.Gateways), said)
			}
			server := mesh.Gateways[0].Servers[0].TLS
			shown := [][]byte{server.Certificate}
			for _, p := range server.More {
				shown = append(shown, p.Certificate)
			}
			if !slices.EqualFunc(shown, c.shown, bytes.Equal) || !bytes.Equal(server.CA, c.ca) {
				t.Errorf("certificates %s, authority %s", bytes.Join(shown, nil), server.CA)
			}
		})
	}
}

// TestCredentials finds certificates where each kind of gateway and rule looks for them.
func TestCredentials(t *testing.T) {
	cert, key := pair(t)
	other, otherKey := pair(t)
	text := secretYAML("edge", "web", map[string][]byte{"tls.crt": cert, "tls.key": key}) +
		secretYAML("edge", "web-cacert", map[string][]byte{"cacert": cert}) +
		secretYAML("default", "web", map[string][]byte{"tls.crt": other, "tls.key": otherKey}) +
		secretYAML("certs", "shared", map[string][]byte{"cert": cert, "key": key}) +
		secretYAML("default", "client", map[string][]byte{"tls.crt": cert, "tls.key": key, "ca.crt": other}) + `
apiVersion: v1
kind: Pod
metadata: {name: gw-1, namespace: edge, labels: {istio: ingressgateway}}
spec: {containers: [{name: x}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: beside-the-workload}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 443, name: https, protocol: HTTPS}, hosts: [a.example.com], tls: {mode: MUTUAL, credentialName: web}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: granted}
spec:
  gatewayClassName: weft
  listeners:
  - {name: a, port: 444, protocol: HTTPS, tls: {certificateRefs: [{name: shared, namespace: certs}]}}
  - {name: b, port: 445, protocol: HTTPS, tls: {certificateRefs: [{name: web, namespace: edge}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {name: g, namespace: certs}
spec:
  from: [{group: gateway.networking.k8s.io, kind: Gateway, namespace: default}]
  to: [{group: "", kind: Secret, name: shared}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: ext}
spec:
  host: "*.example.com"
  trafficPolicy: {tls: {mode: MUTUAL, credentialName: client}}
`
	objects, findings := source.Decode(source.LayerFile, "in.yaml", []byte(text))
	if len(findings) > 0 {
		t.Fatal(findings)
	}
	mesh, findings := Compile(Input{Objects: objects})
	if len(findings) != 1 || findings[0].Code != "RefNotPermitted" || findings[0].Field != "spec.listeners[1].tls.certificateRefs[0]" {
		t.Errorf("got %v", findings)
	}
	if s := mesh.Gateways[0].Servers[0].TLS; !bytes.Equal(s.Certificate, cert) || !bytes.Equal(s.Key, key) || !bytes.Equal(s.CA, cert) {
		t.Error("the Gateway has not got the Secret beside its workload, with the authority of its -cacert Secret")
	}
	if s := mesh.Gateways[1].Servers; !bytes.Equal(s[0].TLS.Certificate, cert) || s[1].TLS.Certificate != nil {
		t.Error("the listener must have the Secret that is granted, and not the one that is not")
	}
	if s := mesh.Destinations.Get("*.example.com")[0].Policy.TLS; !bytes.Equal(s.Certificate, cert) || !bytes.Equal(s.CA, other) {
		t.Error("the DestinationRule has not got its Secret")
	}
}

// TestIngressSecretsComeAndGo: an Ingress shows the Secret of its own namespace, else the one beside the gateway, whichever is there.
func TestIngressSecretsComeAndGo(t *testing.T) {
	own, ownKey := pair(t)
	edge, edgeKey := pair(t)
	decode := func(text string) []*source.Object {
		objects, findings := source.Decode(source.LayerApplied, "in.yaml", []byte(text))
		if len(findings) > 0 {
			t.Fatal(findings)
		}
		return objects
	}
	fixed := decode(`apiVersion: v1
kind: Pod
metadata: {name: gw-1, namespace: edge, labels: {istio: ingressgateway}}
spec: {containers: [{name: x}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: shop}
spec:
  ingressClassName: istio
  defaultBackend: {service: {name: web, port: {number: 80}}}
  tls: [{secretName: web}]
`)
	gateway := fixed[:1]
	beside := decode(secretYAML("edge", "web", map[string][]byte{"tls.crt": edge, "tls.key": edgeKey}))
	at := decode(secretYAML("default", "web", map[string][]byte{"tls.crt": own, "tls.key": ownKey}))
	c := New(model.Settings{})
	ref := model.Ref{Kind: "Ingress", Namespace: "default", Name: "shop"}
	c.Apply(fixed, nil)
	for _, s := range []struct {
		what      string
		set, gone []*source.Object
		shown     []byte
		missing   bool
	}{
		{"a Secret beside the gateway appears", beside, nil, edge, false},
		{"one of the Ingress's namespace appears", at, nil, own, false},
		{"that beside the gateway goes", nil, beside, own, false},
		{"that of the Ingress's namespace goes too", nil, at, nil, true},
		{"the one beside the gateway is back", beside, nil, edge, false},
		{"the gateway is gone, and nothing is beside it", nil, gateway, nil, true},
		{"the gateway is back", gateway, nil, edge, false},
	} {
		var gone []source.Key
		for _, o := range s.gone {
			gone = append(gone, o.Key())
		}
		mesh, delta := c.Apply(s.set, gone)
		if got := mesh.Gateways[0].Servers[1].TLS.Certificate; !bytes.Equal(got, s.shown) {
			t.Errorf("%s: shown is %q", s.what, got)
		}
		told := slices.ContainsFunc(c.Findings(), func(f model.Finding) bool { return f.Code == "CredentialNotFound" })
		if told != s.missing {
			t.Errorf("%s: findings %v", s.what, c.Findings())
		}
		if s.what != "that beside the gateway goes" && !delta.Gateways[ref] {
			t.Errorf("%s: the delta does not name the Ingress", s.what)
		}
	}
}
