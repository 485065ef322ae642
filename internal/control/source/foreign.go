package source

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source/document"
	"github.com/weftmesh/weft/internal/control/source/weftapi"
)

// What people keep beside the mesh's objects, and what `kustomize build` and `helm template` write, has kinds that are none of the mesh's
// business. These are left out, and that is said. What could be meant for the mesh is refused: a kind of its own groups that it does not
// read, and whatever looks like one that is mistyped.

// CodeLeftOut is that of the finding which names the objects that were left out of a file.
const CodeLeftOut = "LeftOut"

// groupKind names a kind without its version.
type groupKind struct{ group, kind string }

// notYet gives the reasons for kinds of our own field that are refused by name. It is never changed.
var notYet = map[groupKind]string{
	{GroupNetworking, "EnvoyFilter"}:         "the proxy is not Envoy",
	{GroupSecurity, "RequestAuthentication"}: "tokens would not be checked",
	{"telemetry.istio.io", "Telemetry"}:      "its settings would have no effect",
	{"extensions.istio.io", "WasmPlugin"}:    "the plugin would not run",
}

// inPlace says what does here what a kind that is left out does on Kubernetes. It is never changed.
var inPlace = map[groupKind]string{
	{"", "Endpoints"}:               "use an EndpointSlice",
	{"", "ReplicationController"}:   runsOnKubernetes,
	{GroupApps, "ReplicaSet"}:       runsOnKubernetes,
	{GroupApps, "StatefulSet"}:      runsOnKubernetes,
	{GroupApps, "DaemonSet"}:        runsOnKubernetes,
	{"batch", "Job"}:                runsOnKubernetes + ", or `weft run`",
	{"batch", "CronJob"}:            runsOnKubernetes + ", or `weft run`",
	{GroupIngress, "NetworkPolicy"}: "Kubernetes enforces it, the mesh does not: use an AuthorizationPolicy",
}

const runsOnKubernetes = "Kubernetes runs it, `weft up` does not: use a Deployment"

// unread are Kubernetes' own kinds that the mesh does not read, of the groups of which it reads others. It is never changed.
var unread = map[string][]string{
	"": {"Binding", "ComponentStatus", "Endpoints", "Event", "LimitRange", "Node", "PersistentVolume", "PersistentVolumeClaim", "PodTemplate",
		"ReplicationController", "ResourceQuota"},
	GroupApps:      {"ControllerRevision", "DaemonSet", "ReplicaSet", "StatefulSet"},
	GroupIngress:   {"IPAddress", "NetworkPolicy", "ServiceCIDR"},
	GroupDiscovery: nil,
}

// plainGroups are Kubernetes' own whose names have no dot, as those of extensions have. "extensions" is not among them: nothing but what
// has moved to groups that are read was ever used of it.
var plainGroups = []string{"autoscaling", "batch", "policy"}

// isForeign reports whether a kind is certainly none of the mesh's.
func (g groupKind) isForeign() bool {
	if kinds, ours := unread[g.group]; ours {
		return slices.Contains(kinds, g.kind)
	}
	if !strings.Contains(g.group, ".") {
		return slices.Contains(plainGroups, g.group)
	}
	for _, domain := range []string{"istio.io", "weft.dev", GroupGateway, "gateway.networking.x-k8s.io"} {
		if g.group == domain || strings.HasSuffix(g.group, "."+domain) {
			return false
		}
	}
	return document.DidYouMean(g.group, groups()) == ""
}

// groups are those of which the mesh reads kinds, or refuses some by name.
func groups() []string {
	all := []string{GroupNetworking, GroupSecurity, weftapi.GroupNetworking, GroupGateway, GroupIngress, GroupApps, GroupDiscovery}
	for k := range notYet {
		all = append(all, k.group)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// likely says what may have been meant by a kind that is not read.
func (g groupKind) likely() string {
	var here []string
	for _, k := range kinds {
		if k.Group == g.group {
			here = append(here, k.Name)
		}
	}
	if hint := document.DidYouMean(g.kind, here); hint != "" || len(here) == 0 {
		return cmp.Or(hint, document.DidYouMean(g.group, groups()))
	}
	if g.group == "" {
		return "of Kubernetes' core it reads " + strings.Join(here, ", ")
	}
	return "of " + g.group + " it reads " + strings.Join(here, ", ")
}

// ref is how findings call an object whose kind is not read.
func (g groupKind) ref(root *yaml.Node) model.Ref {
	k := keyOf(&Kind{Group: g.group, Name: g.kind}, root)
	return model.Ref{Kind: k.Kind, Namespace: k.Namespace, Name: k.Name}
}

// foreign is a document of a kind that is none of the mesh's.
type foreign struct {
	groupKind
	namespace, name string // as they are written
	line            int
}

func foreignAt(root *yaml.Node, g groupKind) *foreign {
	meta := document.Field(root, "metadata")
	return &foreign{g, document.Field(meta, "namespace").Value, document.Field(meta, "name").Value, root.Line}
}

// String gives "Kind namespace/name".
func (f *foreign) String() string {
	name := f.name
	if f.namespace != "" {
		name = f.namespace + "/" + name
	}
	return strings.TrimSpace(f.kind + " " + name)
}

// maxNamed bounds how many objects one finding names.
const maxNamed = 20

// leftOut says which documents of a file are left out; nothing where there are none.
func leftOut(file string, all []decoded) []decoded {
	f := model.Finding{Severity: model.Info, Code: CodeLeftOut, File: file}
	var names, hints []string
	n := 0
	for i := range all {
		o := all[i].foreign
		if o == nil {
			continue
		}
		if n++; n == 1 {
			f.Line = o.line
		}
		if n <= maxNamed {
			names = append(names, fmt.Sprintf("%s (line %d)", o, o.line))
		}
		if hint := inPlace[o.groupKind]; hint != "" && !slices.Contains(hints, o.kind+": "+hint) {
			hints = append(hints, o.kind+": "+hint)
		}
	}
	if n == 0 {
		return nil
	}
	f.Message = "an object of a kind that the mesh does not read is left out: "
	if n > 1 {
		f.Message = fmt.Sprintf("%d objects of kinds that the mesh does not read are left out: ", n)
	}
	f.Message += strings.Join(names, ", ")
	if n > maxNamed {
		f.Message += fmt.Sprintf(", and %d more", n-maxNamed)
	}
	f.Hint = strings.Join(hints, "; ")
	return []decoded{{findings: []model.Finding{f}}}
}
