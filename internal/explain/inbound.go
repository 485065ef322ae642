package explain

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/decode"
	"github.com/weftmesh/weft/internal/proxy/filter/authz"
	"github.com/weftmesh/weft/internal/proxy/filter/grpcweb"
	"github.com/weftmesh/weft/internal/proxy/route"
	"github.com/weftmesh/weft/internal/wire"
)

func transportOf(c *conf.Cluster, ep *conf.Endpoint) *conf.UpstreamTLS {
	for _, t := range c.Transports {
		if t.TLSMode == "" || t.TLSMode == ep.TLSMode {
			return t.TLS
		}
	}
	return nil
}

func names(sans []conf.StringMatch) string {
	if len(sans) == 0 {
		return "any identity of the mesh"
	}
	var out []string
	for i := range sans {
		out = append(out, sans[i].Value)
	}
	return strings.Join(out, " or ")
}

// inbound evaluates the destination's proxy for a connection of the client, on which HTTP/2 may be spoken.
func (e *evaluation) inbound(server *Proxy, c *conf.Cluster, ep *conf.Endpoint, tls *conf.UpstreamTLS, http2 bool) *Inbound {
	in := &Inbound{Party: server.describe(), Port: ep.Port, Plaintext: tls == nil || !tls.Workload, unshaken: tls != nil}
	if server.Port != nil {
		in.Port = server.Port(ep, c)
	}
	ln, found, err := get[*conf.Listener](server, decode.ListenerType, wire.InboundListener)
	switch {
	case err != nil:
		e.problem("the proxy of %s refuses its configuration: %v", server.Workload, err)
		in.Refused = "no valid configuration"
		return in
	case !found:
		in.Refused = "no inbound listener"
		return in
	}
	address := server.Address
	if !address.IsValid() {
		address = ep.Addr.Addr()
	}
	conn := &route.ConnInfo{Destination: netip.AddrPortFrom(address, in.Port), Source: e.view.Client.Address, Transport: conf.RawTransport}
	http := e.report.Protocol == "http"
	switch {
	case tls != nil:
		conn.Transport, conn.ServerName, conn.ALPN = conf.TLSTransport, tls.SNI, offered(tls.ALPN, http)
	case e.report.Protocol == "tls":
		conn.Transport, conn.ServerName = conf.TLSTransport, e.talk.named
	case http:
		conn.ALPN = []string{"http/1.1"}
	}
	ch, step := route.Chain(ln, conn)
	if ch == nil {
		in.Refused = fmt.Sprintf("no filter chain takes the connection (%s)", step)
		if tls == nil && e.report.Protocol != "tls" {
			in.Refused = "plaintext is refused: only mutual TLS is taken (STRICT)"
		}
		return in
	}
	in.Chain, in.To, in.Relayed = ch.Name, onward(server, ch, in.Port), ch.HTTP == nil
	if in.Refused = in.handshake(ch, tls, http2); in.Refused != "" {
		return in
	}
	if in.Verdict = e.authorize(ch, conn, in); in.Verdict.Allowed && ch.TLS == nil && tls != nil && tls.Workload {
		in.Refused = "mutual TLS does not end at the proxy (DISABLE), and the workload cannot answer it"
	}
	return in
}

// handshake says why a chain that ends TLS refuses what the client's proxy shows, and whether that is found out before the handshake is
// complete for the client.
func (in *Inbound) handshake(ch *conf.Chain, tls *conf.UpstreamTLS, http2 bool) string {
	in.unshaken = tls != nil && ch.TLS == nil // the bytes are passed on, and nobody has answered yet
	if ch.TLS == nil || !ch.TLS.Workload || !in.Plaintext {
		return ""
	}
	// Who verifies ends it first. Else it is complete for the client when the server looks for the certificate (RFC 8446 section 2), but
	// not before who speaks HTTP/2 has heard a word.
	in.unshaken = tls != nil && (!tls.SkipVerify || http2)
	return "it asks for a certificate of the mesh, and none is shown"
}

// offered is the ALPN that the client's proxy offers for what it carries.
func offered(alpn []string, http bool) []string {
	want := wire.ALPNTCP
	if http {
		want = wire.ALPNHTTP1
	}
	if slices.Contains(alpn, want) {
		return []string{want}
	}
	return alpn
}

func (e *evaluation) authorize(ch *conf.Chain, conn *route.ConnInfo, in *Inbound) Verdict {
	input := &authz.Input{Source: conn.Source, Remote: conn.Source, Destination: conn.Destination.Addr(), Port: in.Port, SNI: conn.ServerName}
	if ch.TLS != nil && ch.TLS.Workload {
		input.Peer = e.view.Client.Identity.String()
	}
	var sets []*conf.RBAC
	switch {
	case ch.HTTP != nil:
		if sets, input.Request = ch.HTTP.RBAC, e.forwarded(); ch.HTTP.GRPCWeb {
			grpcweb.Enter(input.Request)
		}
		in.Limits = e.limits(ch.HTTP, nil, input.Request, input.Remote)
	case ch.TCP != nil:
		sets = ch.TCP.RBAC
	}
	return verdict(sets, input)
}

func verdict(sets []*conf.RBAC, in *authz.Input) Verdict {
	v := authz.Evaluate(sets, in)
	out := Verdict{Allowed: v.Allowed, Rule: v.Rule, Policy: v.Policy}
	if v.ShadowDenied {
		out.DryRun = "would be denied"
		if v.ShadowPolicy != "" {
			out.DryRun += " by " + v.ShadowPolicy
		}
	}
	if v.Rule == authz.AllowMissed {
		for _, a := range authz.Trace(sets, in) {
			if a.Action == conf.Allow {
				out.Missed = append(out.Missed, Miss{a.Policy, a.Why})
			}
		}
	}
	return out
}

// text says it in one line.
func (v *Verdict) text() string {
	s := v.Rule
	if v.Policy != "" {
		s += ": " + v.Policy
	}
	return s
}
