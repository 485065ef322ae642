package app_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	networking "istio.io/api/networking/v1"
	security "istio.io/api/security/v1"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	gateway "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"
)

// schemas has a new object of each kind that the manifests may use. Istio's are the spec alone.
var schemas = map[string]func() any{
	"v1/Service":                               func() any { return &core.Service{} },
	"v1/ServiceAccount":                        func() any { return &core.ServiceAccount{} },
	"apps/v1/Deployment":                       func() any { return &apps.Deployment{} },
	"gateway.networking.k8s.io/v1/Gateway":     func() any { return &gateway.Gateway{} },
	"gateway.networking.k8s.io/v1/HTTPRoute":   func() any { return &gateway.HTTPRoute{} },
	"networking.istio.io/v1/Gateway":           func() any { return &networking.Gateway{} },
	"networking.istio.io/v1/VirtualService":    func() any { return &networking.VirtualService{} },
	"networking.istio.io/v1/DestinationRule":   func() any { return &networking.DestinationRule{} },
	"security.istio.io/v1/PeerAuthentication":  func() any { return &security.PeerAuthentication{} },
	"security.istio.io/v1/AuthorizationPolicy": func() any { return &security.AuthorizationPolicy{} },
}

// No document has a field that its kind does not know, or a value of the wrong type.
func TestManifestsKeepToTheirSchemas(t *testing.T) {
	documents := 0
	for _, pattern := range []string{"*.yaml", "try/*.yaml", "try/gateway-api/*.yaml"} {
		files, err := filepath.Glob(filepath.Join("..", pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, doc := range bytes.Split(text, []byte("\n---\n")) {
				documents++
				if err := checkSchema(t, doc); err != nil {
					t.Errorf("%s: %v\n%s", file, err, doc)
				}
			}
		}
	}
	if documents == 0 {
		t.Error("no manifest found")
	}
}

func checkSchema(t *testing.T, doc []byte) error {
	var head struct {
		APIVersion, Kind string
		Spec             json.RawMessage
	}
	if err := yaml.Unmarshal(doc, &head); err != nil {
		return err
	}
	newObject := schemas[head.APIVersion+"/"+head.Kind]
	if newObject == nil {
		t.Fatalf("no schema for %s %s", head.APIVersion, head.Kind)
	}
	object := newObject()
	if spec, ok := object.(proto.Message); ok && isIstio(head.APIVersion) {
		return protojson.Unmarshal(head.Spec, spec)
	}
	return yaml.UnmarshalStrict(doc, object)
}

func isIstio(apiVersion string) bool {
	return apiVersion == "networking.istio.io/v1" || apiVersion == "security.istio.io/v1"
}
