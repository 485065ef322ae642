package decode

import (
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/decode/walk"
	"github.com/weftmesh/weft/internal/proxy/message"
)

// tunnel decodes what the endpoints of a relay are asked for. The request is made of constants: there is no request to take values from.
func (d *decoder) tunnel(m *tcpv3.TcpProxy_TunnelingConfig) *conf.Tunnel {
	d.Only(m, "hostname", "use_post", "headers_to_add", "post_path")
	t := &conf.Tunnel{Target: m.GetHostname(), Post: m.GetUsePost(), Path: m.GetPostPath()}
	switch _, port, ok := strings.Cut(t.Target[strings.LastIndexByte(t.Target, ']')+1:], ":"); {
	case strings.Contains(t.Target, "%"):
		d.At("hostname", func() { d.Fail("%q: operators are not supported here", t.Target) })
	case !ok || port == "" || !message.ValidAuthority(t.Target):
		d.At("hostname", func() { d.Fail("%q is not a host with a port", t.Target) })
	}
	switch {
	case t.Path != "" && !t.Post:
		d.At("post_path", func() { d.Fail("needs use_post") })
	case t.Path == "" && t.Post:
		t.Path = "/"
	case t.Path != "" && (t.Path[0] != '/' || strings.ContainsFunc(t.Path, func(r rune) bool { return r <= ' ' || r >= 0x7f })):
		d.At("post_path", func() { d.Fail("%q is not a path", t.Path) })
	}
	walk.Each(d.Walk, "headers_to_add", m.GetHeadersToAdd(), func(h *corev3.HeaderValueOption) {
		if strings.Contains(h.GetHeader().GetValue(), "%") {
			d.At("header.value", func() { d.Fail("%q: operators are not supported here", h.GetHeader().GetValue()) })
		}
		if d.headerValue(h, &t.Headers); t.Headers.Host != "" {
			d.Fail("host is that of the tunnel")
		}
	})
	return t
}
