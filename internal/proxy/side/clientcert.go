package side

import "github.com/weftmesh/weft/internal/proxy/message"

// ClientCertHeader tells an application who called it. Source: Envoy.
const ClientCertHeader = "X-Forwarded-Client-Cert"

// NamesClientCert reports whether an application may take a field of that name for ClientCertHeader: gateway interfaces such as CGI and
// WSGI do not tell dashes from underscores.
func NamesClientCert(name string) bool {
	if len(name) != len(ClientCertHeader) {
		return false
	}
	for i := range len(name) {
		c := name[i]
		if c == '_' {
			c = '-'
		}
		if c|0x20 != ClientCertHeader[i]|0x20 {
			return false
		}
	}
	return true
}

// DropClientCert takes fields that tell who calls out of what a client has sent.
func DropClientCert(h *message.Header) *message.Header {
	if !h.MayHave(ClientCertHeader) { // nor one with underscores: the trace of that is the same
		return h
	}
	for i := range h.Len() {
		if NamesClientCert(h.Name(i)) {
			h.DelFunc(NamesClientCert)
			break
		}
	}
	return h
}

// Trailers implements relay.Source: a client says there no more of who it is than in a head.
func (c *Client1) Trailers() *message.Header { return DropClientCert(c.ServerConn.Trailers()) }

// Trailers implements relay.Source, as for Client1.
func (c *Client2) Trailers() *message.Header { return DropClientCert(c.ServerStream.Trailers()) }

// Trailers implements relay.Source, as for Client1.
func (c *Client3) Trailers() *message.Header { return DropClientCert(c.Stream.Trailers()) }
