package istio

import (
	"cmp"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	meshapi "istio.io/api/mesh/v1alpha1"
	networkingapi "istio.io/api/networking/v1alpha3"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
	"github.com/weftmesh/weft/internal/identity"
)

// MeshConfigName names the ConfigMap of the root namespace that holds the mesh's settings, and meshConfigKey the entry of it, as in
// Istio.
const (
	MeshConfigName = "istio"
	MeshConfigKey  = "mesh"
	meshConfigPath = "data." + MeshConfigKey
)

// meshConfig converts the settings of the mesh: those that the process was started with, and over them what the ConfigMap says.
func (p converter) meshConfig(cm *corev1.ConfigMap) {
	for _, key := range parts.SortedKeys(cm.Data) {
		if key != MeshConfigKey && strings.TrimSpace(cm.Data[key]) != "" {
			p.otherMeshKey(key, cm.Data[key])
		}
	}
	m := &meshapi.MeshConfig{}
	problems := p.Embedded(meshConfigPath, cm.Data[MeshConfigKey], m)
	before := slices.Concat(p.Findings, problems)
	p.Findings = nil
	defer func() { p.Findings = append(before, source.BesideFields(p.Findings, problems)...) }()
	p.onlyMesh(m)
	s := p.Mesh
	p.meshIdentity(m, &s)
	p.meshTraffic(m, &s)
	p.meshOutbound(m, &s)
	p.meshIngress(m, &s)
	p.meshExports(m, &s)
	p.meshTelemetry(m, &s)
	p.meshProxies(m.DefaultConfig, meshConfigPath+".defaultConfig", &s)
	p.Settings = &s
}

// otherMeshKey: Istio's installer writes an empty set of networks beside the settings.
func (p converter) otherMeshKey(key, text string) {
	if key == "meshNetworks" {
		networks := &meshapi.MeshNetworks{}
		p.Findings = append(p.Findings, p.Embedded("data.meshNetworks", text, networks)...)
		if len(networks.Networks) == 0 {
			return
		}
	}
	p.Unsupported(parts.Key("data", key), "only the entry "+MeshConfigKey+" is read")
}

// carried are the fields of MeshConfig that something reads below.
var carried = []string{"trustDomain", "rootNamespace", "connectTimeout", "tcpKeepalive", "localityLbSetting", "enableAutoMtls", "h2UpgradePolicy",
	"defaultHttpRetryPolicy", "defaultTrafficPolicy", "pathNormalization", "outboundTrafficPolicy", "ingressClass", "ingressControllerMode",
	"ingressSelector", "defaultServiceExportTo", "defaultVirtualServiceExportTo", "defaultDestinationRuleExportTo", "accessLogFile",
	"accessLogFormat", "accessLogEncoding", "defaultConfig", "verifyCertificateAtClient", "defaultProviders"}

// withoutEffect are fields of MeshConfig that leave nothing to do, and why.
var withoutEffect = map[string]string{
	"protocolDetectionTimeout":    "protocols are detected without waiting for a client that stays silent",
	"dnsRefreshRate":              "names are looked up again when their records' time is over",
	"ingressService":              "no status of an Ingress is written",
	"enablePrometheusMerge":       "the proxy's metrics are served by itself",
	"extensionProviders":          "nothing that could refer to a provider is supported",
	"serviceSettings":             "the mesh has one cluster",
	"serviceScopeConfigs":         "the mesh has one cluster",
	"disableEnvoyListenerLog":     "connections are logged as requests are",
	"enableEnvoyAccessLogService": "",
	"hboneIdleTimeout":            "there is no ambient mode",
	"proxyHttpPort":               "",
	"proxyListenPort":             "",
	"proxyInboundListenPort":      "",
	"inboundClusterStatName":      "",
	"outboundClusterStatName":     "",
}

// refusedHints say what to use instead of fields of MeshConfig that are refused.
var refusedHints = map[string]string{
	"enableTracing":        "traces are not sent",
	"trustDomainAliases":   "write the other trust domains into the policies",
	"caCertificates":       "roots are those of the authority",
	"certificates":         "",
	"ca":                   "certificates are signed by the mesh's own authority",
	"configSources":        "give files to weft up, or use weft apply",
	"discoverySelectors":   "objects of all namespaces are read",
	"meshMTLS":             "proxies use TLS 1.3, or 1.2 and safe cipher suites, with each other",
	"tlsDefaults":          "set minProtocolVersion and cipherSuites of each Gateway's server",
	"zoneAwareLbSetting":   "use localityLbSetting",
	"inboundTrafficPolicy": "connections are handed to the address that was called",
}

// onlyMesh says of each field that is set and not carried whether that matters.
func (p converter) onlyMesh(m proto.Message) {
	m.ProtoReflect().Range(func(f protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		name := f.JSONName()
		reason, idle := withoutEffect[name]
		switch {
		case slices.Contains(carried, name):
		case idle && reason != "":
			p.Info("NoEffect", meshConfigPath+"."+name, "", "it has no effect: %s", reason)
		default:
			p.Unsupported(meshConfigPath+"."+name, refusedHints[name])
		}
		return true
	})
}

// meshIdentity reads who the mesh is. Its trust domain is that of its authority, which a running mesh cannot change.
func (p converter) meshIdentity(m *meshapi.MeshConfig, s *model.Settings) {
	switch d := m.TrustDomain; {
	case d == "" || d == s.TrustDomain:
	case p.Starting:
		if identity.ControlID(d).Validate() != nil {
			p.Err("InvalidValue", meshConfigPath+".trustDomain", "", "%q is not a trust domain: lower-case letters, digits, dots, dashes and underscores", d)
		}
		s.TrustDomain = d
	default:
		p.Err("ConflictingFields", meshConfigPath+".trustDomain", "start another mesh for it, with weft up --mesh-config FILE and a state folder of its own",
			"the trust domain of this mesh is %q and stays what it was made with", s.TrustDomain)
	}
	if ns := m.RootNamespace; ns != "" {
		if problems := validation.IsDNS1123Label(ns); len(problems) > 0 {
			p.Err("InvalidValue", meshConfigPath+".rootNamespace", "", "%q is not a namespace: %s", ns, problems[0])
		}
		s.RootNamespace = ns
	}
	if v := m.VerifyCertificateAtClient; v != nil && !v.Value { //nolint:staticcheck // deprecated, and still in use
		p.Unsupported(meshConfigPath+".verifyCertificateAtClient", "certificates of servers are always verified; a DestinationRule may set insecureSkipVerify")
	}
	if m.EnableAutoMtls != nil {
		s.ManualMTLS = !m.EnableAutoMtls.Value
	}
}

// meshTraffic reads what destinations and routes inherit.
func (p converter) meshTraffic(m *meshapi.MeshConfig, s *model.Settings) {
	if t := p.Timeout(m.ConnectTimeout, meshConfigPath+".connectTimeout"); t > 0 {
		s.ConnectTimeout = t
	}
	if k := m.TcpKeepalive; k != nil {
		s.KeepAlive = p.keepAlive(k, meshConfigPath+".tcpKeepalive")
	}
	if l := p.localitySetting(m.LocalityLbSetting, meshConfigPath+".localityLbSetting"); l != nil {
		s.Locality = l
	}
	s.UpgradeHTTP2 = s.UpgradeHTTP2 || m.H2UpgradePolicy == meshapi.MeshConfig_UPGRADE
	if r := p.retries(m.DefaultHttpRetryPolicy, meshConfigPath+".defaultHttpRetryPolicy"); r != nil {
		s.Retries = r
	}
	if d := m.DefaultTrafficPolicy; d != nil {
		p.Only(d, meshConfigPath+".defaultTrafficPolicy", "connectionPool", "outlierDetection")
		s.Pool = cmp.Or(p.pool(d.ConnectionPool, meshConfigPath+".defaultTrafficPolicy.connectionPool"), s.Pool)
		s.Outlier = cmp.Or(p.outlier(d.OutlierDetection, meshConfigPath+".defaultTrafficPolicy.outlierDetection"), s.Outlier)
	}
	switch n := m.PathNormalization.GetNormalization(); n {
	case meshapi.MeshConfig_ProxyPathNormalization_DEFAULT, meshapi.MeshConfig_ProxyPathNormalization_BASE:
	case meshapi.MeshConfig_ProxyPathNormalization_NONE:
		s.Paths = model.NormalizeOff
	case meshapi.MeshConfig_ProxyPathNormalization_MERGE_SLASHES:
		s.Paths = model.MergeSlashes
	case meshapi.MeshConfig_ProxyPathNormalization_DECODE_AND_MERGE_SLASHES:
		s.Paths = model.DecodeSlashes
	default:
		p.Unsupported(meshConfigPath+".pathNormalization.normalization", "use NONE, BASE, MERGE_SLASHES or DECODE_AND_MERGE_SLASHES")
	}
}

func (p converter) meshOutbound(m *meshapi.MeshConfig, s *model.Settings) {
	o := m.OutboundTrafficPolicy
	if o == nil {
		return
	}
	field := meshConfigPath + ".outboundTrafficPolicy"
	p.Only(o, field, "mode")
	switch o.Mode {
	case meshapi.MeshConfig_OutboundTrafficPolicy_REGISTRY_ONLY:
		s.RegistryOnly = true
	case meshapi.MeshConfig_OutboundTrafficPolicy_ALLOW_ANY:
		s.RegistryOnly = false
	default:
		p.Unsupported(field+".mode", "use ALLOW_ANY or REGISTRY_ONLY")
	}
}

// meshIngress reads which Ingress objects are served. The mesh's own classes always are, unless all are off.
func (p converter) meshIngress(m *meshapi.MeshConfig, s *model.Settings) {
	s.Ingress.Class, s.Ingress.Selector = cmp.Or(m.IngressClass, s.Ingress.Class), cmp.Or(m.IngressSelector, s.Ingress.Selector)
	if mode := m.IngressControllerMode; mode != meshapi.MeshConfig_UNSPECIFIED {
		s.Ingress.Off, s.Ingress.Unclassed = mode == meshapi.MeshConfig_OFF, mode == meshapi.MeshConfig_DEFAULT
	}
	if v := m.IngressSelector; len(validation.IsValidLabelValue(v)) > 0 {
		p.Err("InvalidLabel", meshConfigPath+".ingressSelector", "", "%q is not the value of a label", v)
	}
}

// meshExports reads who sees what names no namespaces itself.
func (p converter) meshExports(m *meshapi.MeshConfig, s *model.Settings) {
	for _, e := range []struct {
		list  []string
		field string
		into  *[]string
	}{
		{m.DefaultServiceExportTo, "defaultServiceExportTo", &s.ServiceExport},
		{m.DefaultVirtualServiceExportTo, "defaultVirtualServiceExportTo", &s.RouteExport},
		{m.DefaultDestinationRuleExportTo, "defaultDestinationRuleExportTo", &s.DestinationExport},
	} {
		if p.ExportTo(e.list, meshConfigPath+"."+e.field); len(e.list) > 0 {
			*e.into = e.list
		}
	}
}

// meshTelemetry reads what is asked of logs, and compares what is asked of metrics with what proxies do.
func (p converter) meshTelemetry(m *meshapi.MeshConfig, s *model.Settings) {
	p.meshLog(m, s)
	d := m.DefaultProviders
	if d == nil {
		return
	}
	p.Only(d, meshConfigPath+".defaultProviders", "metrics")
	for i, name := range d.Metrics {
		if name != "prometheus" {
			p.Unsupported(parts.At(meshConfigPath+".defaultProviders.metrics", i), "metrics are always served in Prometheus' form, and in no other")
		}
	}
}

// meshProxies reads what Istio says of each proxy's start. What concerns Envoy alone has no effect.
func (p converter) meshProxies(c *meshapi.ProxyConfig, field string, s *model.Settings) {
	if c == nil {
		return
	}
	if n := c.Concurrency; n != nil {
		cores := p.Limit(n.Value, field+".concurrency")
		s.Concurrency = &cores
	}
	for _, name := range startOnly {
		f := c.ProtoReflect().Descriptor().Fields().ByJSONName(name)
		if f != nil && c.ProtoReflect().Has(f) {
			p.Info("NoEffect", field+"."+name, "", "it has no effect: proxies are started by the mesh in its own way")
		}
	}
	p.Only(c, field, append([]string{"concurrency"}, startOnly...)...)
}

// startOnly are the fields of Istio's proxies' own settings that concern how Envoy is started.
var startOnly = []string{"discoveryAddress", "proxyMetadata", "tracing", "holdApplicationUntilProxyStarts", "configPath", "binaryPath", "serviceCluster",
	"drainDuration", "terminationDrainDuration", "statusPort", "proxyAdminPort", "controlPlaneAuthPolicy", "meshId"}

// keepAlive reads TCP's probing.
func (p converter) keepAlive(k *networkingapi.ConnectionPoolSettings_TCPSettings_TcpKeepalive, field string) *model.KeepAlive {
	return &model.KeepAlive{Probes: k.Probes, Idle: p.Timeout(k.Time, field+".time"), Interval: p.Timeout(k.Interval, field+".interval")}
}

// MeshConfigMap is the ConfigMap that would hold a text as the mesh's settings.
func MeshConfigMap(namespace, text string) *corev1.ConfigMap {
	m := &corev1.ConfigMap{Data: map[string]string{MeshConfigKey: text}}
	m.Name, m.Namespace = MeshConfigName, namespace
	return m
}

// Start converts the settings that a mesh is made with, which may say more than those of one that runs.
func Start(o *source.Object, s model.Settings) *parts.Part {
	p := &parts.Part{Object: o, Mesh: s, Starting: true}
	if m, ok := o.Kube.(*corev1.ConfigMap); ok {
		converter{p}.meshConfig(m)
	}
	return p
}
