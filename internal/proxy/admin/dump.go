package admin

import (
	"encoding/json"
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
	Unbound  map[string]string `json:"unboundGatewayPorts,omitempty"`
	Live     *live.Status      `json:"live,omitempty"`
	Snapshot any               `json:"snapshot"`
}

func (f *Facts) dump() any {
	d := dump{Version: f.Version, Node: f.Node, Ready: f.Unready(), Unbound: f.Unbound(), Snapshot: redacted(f.Snapshot())}
	d.Configs = append(d.Configs, map[string]any{"@type": adminType + "BootstrapConfigDump", "bootstrap": map[string]any{"node": nodeOf(f.Node)}})
	if f.Live != nil {
		s := f.Live()
		d.Live = &s
		d.Configs = append(d.Configs, sections(f.Resources())...)
	}
	return d
}

const adminType = "type.googleapis.com/envoy.admin.v3."

// section is where Envoy shows the resources of a type: envoy.admin.v3.ClustersConfigDump and its kin.
type section struct {
	suffix     string // of the resource's type
	kind, list string
	resource   string // the field that holds it
	active     bool   // a listener's, where it is within active_state, beside the name
}

var envoySections = []section{
	{".Cluster", "ClustersConfigDump", "dynamic_active_clusters", "cluster", false},
	{".Listener", "ListenersConfigDump", "dynamic_listeners", "listener", true},
	{".RouteConfiguration", "RoutesConfigDump", "dynamic_route_configs", "route_config", false},
	{".ClusterLoadAssignment", "EndpointsConfigDump", "dynamic_endpoint_configs", "endpoint_config", false},
}

func sections(resources []live.Resource) []any {
	var out []any
	for _, s := range envoySections {
		var list []any
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
		if list != nil {
			out = append(out, map[string]any{"@type": adminType + s.kind, s.list: list})
		}
	}
	return out
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
