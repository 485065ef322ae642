package source

import (
	"gopkg.in/yaml.v3"

	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source/document"
)

// denyAll is the policy that stands in for a refused AuthorizationPolicy of which no version was ever accepted: one that denies
// every request to the workloads that it is for, who would be open to all without it. Nil for documents that are no such policy, or
// that would deny nothing if they were right, and for those of which it cannot be read whom they are for.
func (d *decoded) denyAll(file string) *Object {
	if d.object != nil || d.root == nil || d.key.Kind != "AuthorizationPolicy" || d.key.Group != GroupSecurity || d.key.Name == "" {
		return nil
	}
	spec := document.Field(d.root, "spec")
	annotations := document.Field(document.Field(d.root, "metadata"), "annotations")
	if document.Field(spec, "action").Value == "AUDIT" || document.Field(annotations, "istio.io/dry-run").Value == "true" {
		return nil
	}
	labels := document.Field(document.Field(spec, "selector"), "matchLabels")
	selects := map[string]string{}
	for i := 0; i+1 < len(labels.Content); i += 2 {
		selects[labels.Content[i].Value] = labels.Content[i+1].Value
	}
	sets := func(name string) bool { _, v := document.Entry(spec, name); return v != nil }
	// The target references, which we do not read, narrow a policy too.
	if spec.Kind != yaml.MappingNode || sets("selector") && len(selects) == 0 || sets("targetRef") || sets("targetRefs") {
		return nil
	}
	type object = map[string]any
	text, err := yaml.Marshal(object{
		"apiVersion": GroupSecurity + "/v1", "kind": d.key.Kind, "metadata": object{"name": d.key.Name, "namespace": d.key.Namespace},
		"spec": object{"action": "DENY", "selector": object{"matchLabels": selects}, "rules": []object{{}}},
	})
	if err != nil {
		return nil
	}
	objects, _ := Decode(LayerFile, file, text)
	if len(objects) != 1 {
		return nil
	}
	objects[0].Origin.Line = d.root.Line
	return objects[0]
}

// close gives the policies that stand in, and says so of each. They are not accepted objects: nothing keeps them once the document
// is put right or gone.
func (r *reader) close(objects map[Key]*Object) (closed []*Object, findings []model.Finding) {
	taken := map[Key]bool{}
	for _, name := range r.order {
		for _, d := range r.files[name].docs {
			if d.closed == nil || objects[d.key] != nil || taken[d.key] {
				continue
			}
			taken[d.key] = true
			closed = append(closed, d.closed)
			findings = append(findings, failsClosed(d.closed))
		}
	}
	return closed, findings
}

func failsClosed(standIn *Object) model.Finding {
	return standIn.Finding(model.Warning, "PolicyFailsClosed", "",
		"the policy was never accepted: until it is put right, every request to the workloads that it selects is denied",
		"put it right or remove it")
}
