package model

import (
	"reflect"
	"time"
)

// Settings are mesh-wide. They are immutable: a change makes new ones.
type Settings struct {
	TrustDomain   string
	ClusterDomain string // "cluster.local"
	RootNamespace string // "istio-system": policies there apply to the whole mesh
	// RegistryOnly refuses destinations that the mesh does not know; otherwise they are passed through. A Sidecar may say otherwise.
	RegistryOnly bool
	AccessLog    bool // proxies are started with an access log of their own
	// Log tells proxies how to log, in place of that; nil for nothing.
	Log            *AccessLogging
	ConnectTimeout time.Duration
	// KeepAlive, UpgradeHTTP2 and Locality are for destinations whose DestinationRule says nothing of them; Pool and Outlier for those
	// whose rule has no such block at all.
	KeepAlive    *KeepAlive
	UpgradeHTTP2 bool
	Locality     *LocalitySetting
	Pool         *ConnectionPool
	Outlier      *Outlier
	// Retries are those of routes that do not speak of retries; nil for the built-in ones.
	Retries *Retries
	// ManualMTLS turns off mutual TLS to endpoints with a sidecar, unless a DestinationRule asks for it.
	ManualMTLS bool
	// Who sees an object that has no exportTo, in exportTo's own form; empty for everybody.
	ServiceExport, RouteExport, DestinationExport []string
	Ingress                                       IngressSettings
	Paths                                         PathNormalization
	Concurrency                                   *uint32 // of proxies, where no ProxyConfig says; see there
}

// Equal reports whether both say the same. They are made anew with each reading, so that comparing pointers says nothing.
func (s *Settings) Equal(as *Settings) bool { return reflect.DeepEqual(s, as) }

// AccessLogging is where and how proxies log requests.
type AccessLogging struct {
	File string // absolute, of the proxy's file system
	// Text is a format, checked, with the end of the line; JSON wants objects instead: Object, or the usual ones where that is nil. With
	// none of them the lines are the client's own.
	Text   string
	JSON   bool
	Object map[string]any
}

// IngressSettings say which Ingress objects are served, and by whom.
type IngressSettings struct {
	// Class is served besides the mesh's own classes; "" for none.
	Class string
	Off   bool
	// Unclassed serves Ingress objects that name no class.
	Unclassed bool
	// Selector is the value of the label "istio" of the gateway's pods; "" for "ingressgateway".
	Selector string
}

// PathNormalization says how paths are made canonical before anything reads them.
type PathNormalization uint8

// The normalizations, each going further than the one before: dot segments and escapes of unreserved characters; runs of slashes;
// escaped slashes. Off leaves paths as they came.
const (
	NormalizePaths PathNormalization = iota
	MergeSlashes
	DecodeSlashes
	NormalizeOff
)
