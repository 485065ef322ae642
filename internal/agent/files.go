package agent

import (
	"cmp"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"

	"github.com/weftmesh/weft/internal/ca/keyfile"
	"github.com/weftmesh/weft/internal/identity"
	"github.com/weftmesh/weft/internal/wire"
)

// Names in the folder. Those of certificates are Istio's.
const (
	GRPCBootstrap  = "grpc-bootstrap.json"
	EnvoyBootstrap = "envoy.json"

	socketFile = "xds.sock"
	current    = "current"
	chainFile  = "cert-chain.pem"
	keyFile    = "key.pem"
	rootsFile  = "root-cert.pem"
)

// write puts a generation into a folder of its own and makes "current" lead there, in one step, so that nobody finds a certificate
// beside another one's key. The generation before stays for who is reading it.
func (a *Agent) write(m *identity.Material) error {
	der, err := x509.MarshalPKCS8PrivateKey(m.Certificate.PrivateKey)
	if err != nil {
		return err
	}
	var chain []byte
	for _, raw := range m.Certificate.Certificate {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw})...)
	}
	dir, err := os.MkdirTemp(a.dir, "generation-")
	if err != nil {
		return err
	}
	for name, text := range map[string][]byte{
		chainFile: chain, rootsFile: m.Bundle.PEM(a.options.Bootstrap.TrustDomain),
		keyFile: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
	} {
		if err := keyfile.Replace(filepath.Join(dir, name), text, 0o600); err != nil {
			return err
		}
	}
	link := filepath.Join(a.dir, current)
	before, _ := os.Readlink(link) // none at first
	next := dir + ".link"
	if err := os.Symlink(filepath.Base(dir), next); err != nil {
		return err
	}
	if err := os.Rename(next, link); err != nil {
		return err
	}
	return a.forget(filepath.Base(dir), before)
}

// forget removes the generations but two.
func (a *Agent) forget(keep ...string) error {
	all, err := filepath.Glob(filepath.Join(a.dir, "generation-*"))
	if err != nil {
		return err
	}
	for _, dir := range all {
		if name := filepath.Base(dir); name != keep[0] && name != keep[1] {
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
		}
	}
	return nil
}

type object = map[string]any

// descriptions are the files that do not change.
func (a *Agent) descriptions() (map[string][]byte, error) {
	out := map[string][]byte{}
	for name, content := range map[string]any{
		GRPCBootstrap: a.grpc(), EnvoyBootstrap: a.envoy(),
		wire.SDSFile(wire.OwnCertificate): secrets(wire.OwnCertificate, object{"tls_certificate": object{
			"certificate_chain": object{"filename": a.at(chainFile)}, "private_key": object{"filename": a.at(keyFile)},
			"watched_directory": object{"path": a.dir}}}),
		wire.SDSFile(wire.MeshRoots): secrets(wire.MeshRoots, object{"validation_context": object{
			"trusted_ca": object{"filename": a.at(rootsFile)}, "watched_directory": object{"path": a.dir}}}),
		wire.SDSFile(wire.SystemRoots): secrets(wire.SystemRoots, object{"validation_context": object{
			"trusted_ca": object{"filename": a.systemRoots()}}}),
	} {
		text, err := json.MarshalIndent(content, "", "  ")
		if err != nil {
			return nil, err
		}
		out[name] = text
	}
	return out, nil
}

// bundles are where systems keep the roots that they trust.
var bundles = []string{"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem"}

// systemRoots is the system's bundle. Where there is none, nobody outside is trusted: the mesh's roots vouch for no host's name.
func (a *Agent) systemRoots() string {
	for _, path := range bundles {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return a.at(rootsFile)
}

// at is the path of a part of the certificate's current generation.
func (a *Agent) at(file string) string { return filepath.Join(a.dir, current, file) }

// node says who the workload is, as our own proxies do. An Envoy wants a cluster, which is a name for its statistics.
func (a *Agent) node(more object) object {
	n := a.options.Bootstrap.Node
	meta := object{"NAMESPACE": n.Namespace, "SERVICE_ACCOUNT": n.ServiceAccount, "WORKLOAD_NAME": n.Workload, "NAME": n.Name,
		"ROLE": string(n.Role), "CLUSTER_ID": n.Cluster, "LABELS": n.Labels}
	for k, v := range more {
		meta[k] = v
	}
	return object{"id": n.ID(), "cluster": cmp.Or(n.Workload, n.Name) + "." + n.Namespace, "metadata": meta}
}

// refresh is how often gRPC looks at the files.
const refresh = "60s"

// grpc is the bootstrap of gRPC's xDS library (gRFCs A27, A29, A36). The socket needs no credentials: the agent shows the workload's.
func (a *Agent) grpc() object {
	files := object{"plugin_name": "file_watcher", "config": object{"certificate_file": a.at(chainFile), "private_key_file": a.at(keyFile),
		"ca_certificate_file": a.at(rootsFile), "refresh_interval": refresh}}
	return object{
		"xds_servers": []any{object{"server_uri": "unix://" + filepath.Join(a.dir, socketFile),
			"channel_creds": []any{object{"type": "insecure"}}, "server_features": []string{"xds_v3"}}},
		"node":                                   a.node(object{wire.GeneratorField: "grpc"}),
		"certificate_providers":                  object{wire.OwnCertificate: files, wire.MeshRoots: files},
		"server_listener_resource_name_template": wire.GRPCServerListenerPrefix + "%s",
	}
}

// controlCluster is the name that Istio's agents give to the control plane in an Envoy's bootstrap.
const controlCluster = "xds-grpc"

func (a *Agent) envoy() object {
	ads := object{"ads": object{}, "resource_api_version": "V3"}
	return object{
		"node":  a.node(object{wire.SDSDirField: a.dir}),
		"admin": object{"address": object{"socket_address": object{"address": "127.0.0.1", "port_value": 15000}}},
		"dynamic_resources": object{"lds_config": ads, "cds_config": ads, "ads_config": object{"api_type": "DELTA_GRPC",
			"transport_api_version": "V3", "set_node_on_first_message_only": true,
			"grpc_services": []any{object{"envoy_grpc": object{"cluster_name": controlCluster}}}}},
		"static_resources": object{"clusters": []any{object{
			"name": controlCluster, "type": "STATIC", "connect_timeout": "5s",
			"typed_extension_protocol_options": object{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": object{
				"@type":                "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
				"explicit_http_config": object{"http2_protocol_options": object{}}}},
			"load_assignment": object{"cluster_name": controlCluster, "endpoints": []any{object{"lb_endpoints": []any{object{
				"endpoint": object{"address": object{"pipe": object{"path": filepath.Join(a.dir, socketFile)}}}}}}}},
		}}},
	}
}

// secrets is a file of one secret, as Envoy reads it.
func secrets(name string, content object) object {
	content["@type"], content["name"] = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret", name
	return object{"resources": []any{content}}
}
