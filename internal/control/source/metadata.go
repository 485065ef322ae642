package source

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/weftmesh/weft/internal/control/source/document"

	"gopkg.in/yaml.v3"
)

// DefaultNamespace is that of objects which name none.
const DefaultNamespace = metav1.NamespaceDefault

// metadata checks names, labels and annotations by Kubernetes' rules, and fills in the namespace.
func (w *reading) metadata(root *yaml.Node, kind *Kind, o Kube) {
	w.name(root, kind, o)
	w.namespace(root, kind, o)
	for _, k := range slices.Sorted(maps.Keys(o.GetLabels())) {
		path := document.Join("metadata.labels", k)
		w.valid(root, path, k, validation.IsQualifiedName(k))
		w.valid(root, path, o.GetLabels()[k], validation.IsValidLabelValue(o.GetLabels()[k]))
	}
	for _, k := range slices.Sorted(maps.Keys(o.GetAnnotations())) {
		w.valid(root, document.Join("metadata.annotations", k), k, validation.IsQualifiedName(strings.ToLower(k)))
	}
}

func (w *reading) name(root *yaml.Node, kind *Kind, o Kube) {
	const path = "metadata.name"
	if o.GetName() == "" {
		hint := ""
		if o.GetGenerateName() != "" {
			hint = "generateName is not supported: write a name"
		}
		w.Add(document.Locate(root, path), "MissingField", path, "missing: every object has a name", hint)
		return
	}
	check := validation.IsDNS1123Subdomain
	if kind.LabelName {
		check = validation.IsDNS1123Label
	}
	w.valid(root, path, o.GetName(), check(o.GetName()))
}

func (w *reading) namespace(root *yaml.Node, kind *Kind, o Kube) {
	const path = "metadata.namespace"
	switch {
	case kind.ClusterScoped && o.GetNamespace() != "":
		w.Add(document.Locate(root, path), "InvalidValue", path, "a "+kind.Name+" belongs to no namespace", "remove the field")
	case kind.ClusterScoped:
	case o.GetNamespace() == "":
		o.SetNamespace(DefaultNamespace)
	default:
		w.valid(root, path, o.GetNamespace(), validation.IsDNS1123Label(o.GetNamespace()))
	}
}

func (w *reading) valid(root *yaml.Node, path, value string, problems []string) {
	if len(problems) > 0 {
		w.Add(document.Locate(root, path), "InvalidName", path, fmt.Sprintf("%q is not valid: %s", value, problems[0]), "")
	}
}
