package model

import (
	"reflect"
	"time"
)

// KeyPair is a certificate with its key, as PEM.
type KeyPair struct{ Certificate, Key []byte }

// Gateway is a set of ports that gateway workloads open: a Gateway, a ListenerSet, or what an Ingress asks for.
type Gateway struct {
	Ref Ref
	// Selector picks gateway workloads by label; SelectorNamespace restricts it to one namespace ("" for any).
	Selector          map[string]string
	SelectorNamespace string
	Servers           []Server
	// HTTP3 serves HTTP/3 too at the ports of servers that terminate HTTPS.
	HTTP3 bool
	// ProxyProtocol says that what stands in front of the gateway sends PROXY protocol headers.
	ProxyProtocol ProxyProtocol
	// Client is what the gateway shows to backends whose BackendTLSPolicy has it speak TLS; nil for nothing.
	Client  *KeyPair
	Created time.Time
}

// ProxyProtocol is what a gateway expects at the beginning of connections.
type ProxyProtocol uint8

// The expectations: none, a header, or perhaps a header.
const (
	NoProxyProtocol ProxyProtocol = iota
	RequiredProxyProtocol
	OptionalProxyProtocol
)

// Server is one port of a gateway.
type Server struct {
	Port     uint16
	Name     string
	Protocol Protocol
	Bind     string
	// Hosts as "namespace/host" parts: Namespace "" or "*" for any, "." was replaced by the gateway's own.
	Hosts         []GatewayHost
	HTTPSRedirect bool
	TLS           *ServerTLS
	// Others are, for a listener of the Gateway API, the hosts of all listeners that its Gateway and ListenerSets have at the port, its
	// own among them, each of which has its requests to itself. There are none where it is the only one.
	Others []string
}

// TerminatesHTTPS reports whether requests come to the server through TLS that ends here, with a certificate that any client takes.
func (s *Server) TerminatesHTTPS() bool {
	return s.Protocol == HTTPS && s.TLS != nil && s.TLS.Mode != TLSPassthrough && s.TLS.Mode != TLSIstioMutual
}

// GatewayHost is a host that a server takes, and the namespace that route sets for it must be in ("" for any).
type GatewayHost struct{ Namespace, Host string }

// ServerTLS is a gateway's TLS.
type ServerTLS struct {
	Mode        TLSMode
	Certificate []byte // PEM
	Key         []byte // PEM
	// More certificates, of which clients are shown the one that they can take.
	More []KeyPair
	CA   []byte // PEM, for Mutual and OptionalMutual
	CRL  []byte // PEM; empty for none
	// SANs are the names that clients' certificates need one of; empty for any. CipherSuites are OpenSSL's names, for TLS 1.2; empty
	// for the default.
	SANs, CipherSuites []string
	// CertificateHashes (hexadecimal) and KeyHashes (base64) are SHA-256 of the certificates and public keys of the clients that are let
	// in; both empty for any.
	CertificateHashes, KeyHashes []string
	// AnyClient asks clients for a certificate and takes any, or none: it is for whoever is behind to judge it.
	AnyClient  bool
	MinVersion uint16
	MaxVersion uint16
}

// AsksTheSame reports whether two servers that end TLS ask the same of clients and speak the same with them, whatever certificates they
// show.
func AsksTheSame(a, b *Server) bool {
	x, y := *a.TLS, *b.TLS
	for _, t := range []*ServerTLS{&x, &y} {
		t.Certificate, t.Key, t.More = nil, nil, nil
	}
	return a.Protocol == HTTPS && b.Protocol == HTTPS && reflect.DeepEqual(x, y)
}

// TLSMode says who encrypts and who proves what.
type TLSMode uint8

// The modes. Unset lets the mesh decide (mutual TLS where the endpoint has a sidecar).
const (
	TLSUnset TLSMode = iota
	TLSDisable
	TLSSimple
	TLSMutual
	TLSIstioMutual
	TLSPassthrough
	// TLSOptionalMutual verifies the certificates of clients that show one.
	TLSOptionalMutual
	// TLSAutoPassthrough sends connections to the service that the server name spells out.
	TLSAutoPassthrough
)
