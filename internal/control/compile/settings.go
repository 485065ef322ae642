package compile

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/weftmesh/weft/internal/control/compile/convert"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

// meshSettings gives the settings of a mesh that was started with the given ones: what the ConfigMap of its root namespace says goes
// before them. The root namespace in which it is looked for is that of the start.
func meshSettings(objects []*source.Object, started model.Settings) model.Settings {
	for _, o := range objects {
		if !isMeshConfig(o, started) {
			continue
		}
		if s := convert.Object(o, started).Settings; s != nil {
			return *s
		}
	}
	return started
}

func isMeshConfig(o *source.Object, s model.Settings) bool {
	_, ok := o.Kube.(*corev1.ConfigMap)
	return ok && o.GetName() == convert.MeshConfigName && o.GetNamespace() == s.RootNamespace
}

// CheckFor is Check in a mesh that was started with the given settings.
func CheckFor(s model.Settings) func(*source.Object) []model.Finding {
	s = withDefaults(s)
	return func(o *source.Object) []model.Finding { return source.SortFindings(convert.Object(o, s).Findings) }
}

// StartSettings reads the settings that a mesh is made with from a file in the form of Istio's MeshConfig. What the file leaves out
// stays as it is in started.
func StartSettings(file string, data []byte, started model.Settings) (model.Settings, []model.Finding) {
	started = withDefaults(started)
	o, findings := source.Wrap(file, data, convert.MeshConfigMap(started.RootNamespace, string(data)), "data."+convert.MeshConfigKey)
	if len(findings) > 0 {
		return started, findings
	}
	p := convert.Start(o, started)
	findings = source.SortFindings(p.Findings)
	if p.Settings == nil || p.Failed() {
		return started, findings
	}
	return *p.Settings, findings
}

// ReadSettings is StartSettings for who only wants to know whether they are good: the error names every field that is not.
func ReadSettings(file string, data []byte, started model.Settings) (model.Settings, error) {
	s, findings := StartSettings(file, data, started)
	if !source.HasErrors(findings) {
		return s, nil
	}
	text := ""
	for _, f := range findings {
		if f.Severity == model.Error {
			text += "\n" + f.String()
		}
	}
	return s, fmt.Errorf("mesh settings:%s", text)
}
