package admin

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/weftmesh/weft/internal/proxy/live"
	"github.com/weftmesh/weft/internal/wire"
)

// dump is the configuration in force: Envoy's sections, and our own form of it with the state of its keeper. Secrets are not in it.
type dump struct {
	Configs  []any             `json:"configs"`
	Version  string            `json:"version,omitempty"`
	Node     wire.Node         `json:"node"`
	Ready    string            `json:"notReady,omitempty"`
	Unbound  map[string]string `json:"unboundPorts,omitempty"`
	Live     *live.Status      `json:"live,omitempty"`
	Snapshot any               `json:"snapshot,omitempty"`
}

// configDump serves the configuration in force. resource is one part of it, a list of Envoy's sections or one of ours; name_regex
// chooses resources by name, and leaves our own form out.
func (f *Facts) configDump(w http.ResponseWriter, r *http.Request) {
	names, ok := pattern(w, r, "name_regex")
	if !ok {
		return
	}
	d := dump{Version: f.Version, Node: f.Node, Ready: f.Unready(), Unbound: f.Unbound()}
	var held []live.Resource
	if f.Live != nil {
		s := f.Live()
		d.Live, held = &s, f.Resources()
	}
	if names == nil {
		d.Snapshot = redacted(f.Snapshot())
	} else {
		d.Live, held = nil, slices.DeleteFunc(held, func(r live.Resource) bool { return !names.MatchString(r.Name) })
	}
	bootstrap := map[string]any{"@type": adminType + "BootstrapConfigDump", "bootstrap": map[string]any{"node": nodeOf(f.Node)}}
	switch part := r.FormValue("resource"); part {
	case "":
		d.Configs = append([]any{bootstrap}, sections(held)...)
		f.writeJSON(w, d)
	case "bootstrap":
		f.writeJSON(w, map[string]any{"configs": []any{bootstrap}})
	case "live":
		f.writeJSON(w, map[string]any{part: d.Live})
	case "snapshot":
		f.writeJSON(w, map[string]any{part: d.Snapshot})
	default:
		f.list(w, part, held)
	}
}

// list serves the resources of one of Envoy's lists, each with its type, as Envoy does.
func (f *Facts) list(w http.ResponseWriter, name string, held []live.Resource) {
	known := []string{"bootstrap"}
	for _, s := range envoySections {
		if s.list != name {
			known = append(known, s.list)
			continue
		}
		list := []any{}
		for _, state := range s.states(held) {
			state["@type"] = adminType + s.kind + "." + s.entry
			list = append(list, state)
		}
		f.writeJSON(w, map[string]any{"configs": list})
		return
	}
	http.Error(w, fmt.Sprintf("there is no resource %q: there are %s, live and snapshot", name, strings.Join(known, ", ")), http.StatusNotFound)
}

const adminType = "type.googleapis.com/envoy.admin.v3."

// section is where Envoy shows the resources of a type: envoy.admin.v3.ClustersConfigDump and its kin.
type section struct {
	suffix            string // of the resource's type
	kind, list, entry string // of the list
	resource          string // the field that holds it
	active            bool   // a listener's, where it is within active_state, beside the name
}

var envoySections = []section{
	{".Cluster", "ClustersConfigDump", "dynamic_active_clusters", "DynamicCluster", "cluster", false},
	{".Listener", "ListenersConfigDump", "dynamic_listeners", "DynamicListener", "listener", true},
	{".RouteConfiguration", "RoutesConfigDump", "dynamic_route_configs", "DynamicRouteConfig", "route_config", false},
	{".ClusterLoadAssignment", "EndpointsConfigDump", "dynamic_endpoint_configs", "DynamicEndpointConfig", "endpoint_config", false},
}

func sections(resources []live.Resource) []any {
	var out []any
	for _, s := range envoySections {
		if list := s.states(resources); list != nil {
			out = append(out, map[string]any{"@type": adminType + s.kind, s.list: list})
		}
	}
	return out
}

// states are the section's resources.
func (s *section) states(resources []live.Resource) (list []map[string]any) {
	for _, r := range resources {
		if !strings.HasSuffix(r.Type, s.suffix) {
			continue
		}
		state := map[string]any{"version_info": r.Version, s.resource: hideSecrets(r.Body)}
		if s.active {
			state = map[string]any{"name": r.Name, "active_state": state}
		}
		list = append(list, state)
	}
	return list
}

// hideSecrets gives a message in JSON without what must not be seen.
func hideSecrets(raw json.RawMessage) any {
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		return map[string]string{"error": err.Error()}
	}
	return hide(v)
}

// secret are the fields of Envoy's messages that hold keys and passwords (sensitive in its proto files).
var secret = map[string]bool{"private_key": true, "private_key_provider": true, "password": true, "session_ticket_keys": true,
	"generic_secret": true, "token_secret": true, "hmac_secret": true, "pkcs12": true}

func hide(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			if secret[k] {
				v[k] = "[redacted]"
			} else {
				v[k] = hide(e)
			}
		}
	case []any:
		for i := range v {
			v[i] = hide(v[i])
		}
	}
	return v
}
