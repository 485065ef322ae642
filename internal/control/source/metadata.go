package source

import (
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"gopkg.in/yaml.v3"
)

// DefaultNamespace is that of objects which name none.
const DefaultNamespace = metav1.NamespaceDefault

// metadata checks names, labels and annotations by Kubernetes' rules, and fills in the namespace.
func (w *walker) metadata(root *yaml.Node, kind *Kind, o Kube) {
	w.name(root, kind, o)
	w.namespace(root, kind, o)
	for _, k := range keys(o.GetLabels()) {
		path := join("metadata.labels", k)
		w.valid(root, path, k, validation.IsQualifiedName(k))
		w.valid(root, path, o.GetLabels()[k], validation.IsValidLabelValue(o.GetLabels()[k]))
	}
	for _, k := range keys(o.GetAnnotations()) {
		w.valid(root, join("metadata.annotations", k), k, validation.IsQualifiedName(strings.ToLower(k)))
	}
}

func (w *walker) name(root *yaml.Node, kind *Kind, o Kube) {
	const path = "metadata.name"
	if o.GetName() == "" {
		hint := ""
		if o.GetGenerateName() != "" {
			hint = "generateName is not supported: write a name"
		}
		w.add(locate(root, path), "MissingField", path, "missing: every object has a name", hint)
		return
	}
	check := validation.IsDNS1123Subdomain
	if kind.LabelName {
		check = validation.IsDNS1123Label
	}
	w.valid(root, path, o.GetName(), check(o.GetName()))
}

func (w *walker) namespace(root *yaml.Node, kind *Kind, o Kube) {
	const path = "metadata.namespace"
	switch {
	case kind.ClusterScoped && o.GetNamespace() != "":
		w.add(locate(root, path), "InvalidValue", path, "a "+kind.Name+" belongs to no namespace", "remove the field")
	case kind.ClusterScoped:
	case o.GetNamespace() == "":
		o.SetNamespace(DefaultNamespace)
	default:
		w.valid(root, path, o.GetNamespace(), validation.IsDNS1123Label(o.GetNamespace()))
	}
}

func (w *walker) valid(root *yaml.Node, path, value string, problems []string) {
	if len(problems) > 0 {
		w.add(locate(root, path), "InvalidName", path, fmt.Sprintf("%q is not valid: %s", value, problems[0]), "")
	}
}
