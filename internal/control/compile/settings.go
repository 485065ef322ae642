package compile

import (
	"errors"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/weftmesh/weft/internal/control/compile/convert"
	"github.com/weftmesh/weft/internal/control/compile/convert/istio"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

// settingsAfter gives the settings of the mesh as they will be with changes of objects: what the ConfigMap of its root namespace says
// goes before those that it was started with. The root namespace in which it is looked for is that of the start.
func (k *Compiler) settingsAfter(set []*source.Object, gone []source.Key) model.Settings {
	at := model.Ref{Kind: "ConfigMap", Namespace: k.started.RootNamespace, Name: istio.MeshConfigName}
	now := k.settings
	for _, key := range gone {
		if key.Group == "" && at == (model.Ref{Kind: key.Kind, Namespace: key.Namespace, Name: key.Name}) {
			now = k.started
		}
	}
	for _, o := range set {
		if !isMeshConfig(o, k.started) {
			continue
		}
		if now = k.started; k.convert(o).Settings != nil {
			now = *k.convert(o).Settings
		}
	}
	return now
}

// convert makes of an object what can be made of it alone.
func (k *Compiler) convert(o *source.Object) *part {
	if isMeshConfig(o, k.started) {
		return convert.Object(o, k.started)
	}
	for a := range k.ahead {
		if p := a.part(o, &k.settings); p != nil {
			return p
		}
	}
	if a, ok := o.Brought().(*Ahead); ok {
		if p := a.part(o, &k.settings); p != nil {
			return p
		}
	}
	return convert.Object(o, k.settings)
}

// restart begins anew with other settings, and gives all objects as they will be with changes.
func (k *Compiler) restart(s model.Settings, set []*source.Object, gone []source.Key) []*source.Object {
	objects := make(map[source.Key]*source.Object, len(k.records))
	for r := range maps.Values(k.records) {
		objects[r.Key()] = r.Object
	}
	for _, key := range gone {
		delete(objects, key)
	}
	for _, o := range set {
		objects[o.Key()] = o
	}
	said, ahead := k.said, k.ahead
	if said != nil { // a trial: what was found so far is known
		for u := range k.speakers {
			said[u] = u.found
		}
		for r := range k.refusals {
			said[r] = r.found
		}
	}
	*k = *newCompiler(k.started, s)
	k.said, k.ahead = said, ahead
	return slices.Collect(maps.Values(objects))
}

func isMeshConfig(o *source.Object, s model.Settings) bool {
	_, ok := o.Kube.(*corev1.ConfigMap)
	return ok && o.GetName() == istio.MeshConfigName && o.GetNamespace() == s.RootNamespace
}

// CheckFor is Check in a mesh that was started with the given settings. A large object brings along what it was converted to.
func CheckFor(s model.Settings) func(*source.Object) []model.Finding {
	s = withDefaults(s)
	return func(o *source.Object) []model.Finding {
		p := convert.Object(o, s)
		p.Findings = source.SortFindings(p.Findings)
		if mayBeLarge(o) && len(o.Raw) >= largeText {
			o.Bring(&Ahead{settings: s, parts: map[source.Kube]*part{o.Kube: p}})
		}
		return slices.Clone(p.Findings)
	}
}

// settingsPath is where a ConfigMap has the settings.
const settingsPath = "data." + istio.MeshConfigKey

// StartSettings reads the settings that a mesh is made with from a file in the form of Istio's MeshConfig. What the file leaves out
// stays as it is in started.
func StartSettings(file string, data []byte, started model.Settings) (model.Settings, []model.Finding) {
	started = withDefaults(started)
	o, findings := source.Wrap(file, data, istio.MeshConfigMap(started.RootNamespace, string(data)), settingsPath)
	if len(findings) > 0 {
		return started, findings
	}
	p := istio.Start(o, started)
	findings = source.SortFindings(p.Findings)
	for i := range findings { // the user has written a file, and knows of no ConfigMap
		findings[i].Object, findings[i].Field = model.Ref{}, strings.TrimPrefix(strings.TrimPrefix(findings[i].Field, settingsPath), ".")
	}
	if p.Settings == nil || p.Failed() {
		return started, findings
	}
	return *p.Settings, findings
}

// ReadSettings is StartSettings for who only wants to know whether they are good: the error names every field that is not, each on a
// line.
func ReadSettings(file string, data []byte, started model.Settings) (model.Settings, error) {
	s, findings := StartSettings(file, data, started)
	if !source.HasErrors(findings) {
		return s, nil
	}
	var text []string
	for _, f := range findings {
		if f.Severity == model.Error {
			text = append(text, strings.Replace(f.String(), string(model.Error)+": ", "", 1))
		}
	}
	return s, errors.New(strings.Join(text, "\n"))
}
