package proxy

import (
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/weftmesh/weft/internal/proxy/listen"
	"github.com/weftmesh/weft/internal/proxy/route"
	"github.com/weftmesh/weft/internal/proxy/upstream"
)

func TestWhyNoChainMatches(t *testing.T) {
	for _, c := range []struct {
		step route.ChainStep
		is   listen.Sniffed
		says string
	}{
		{route.ByServerName, listen.Sniffed{Protocol: listen.Silent}, "said nothing"},
		{route.ByTransport, listen.Sniffed{Protocol: listen.HTTP1}, "mutual TLS is required"},
		{route.ByServerName, listen.Sniffed{Protocol: listen.HTTP1}, "TLS is wanted here, and plaintext came"},
		{route.ByServerName, listen.Sniffed{Protocol: listen.TLS}, "names no server (SNI)"},
		{route.ByServerName, listen.Sniffed{Protocol: listen.TLS, ServerName: "shop.example"}, `no server here is named "shop.example"`},
		{route.ByALPN, listen.Sniffed{Protocol: listen.TLS, ALPN: []string{"h2", "smtp"}}, "ALPN h2, smtp"},
		{route.ByPort, listen.Sniffed{Protocol: listen.TLS}, "destination port"},
	} {
		if got := unmatched(c.step, c.is).Error(); !strings.Contains(got, c.says) {
			t.Errorf("%s, %+v: %q does not say %q", c.step, c.is, got, c.says)
		}
	}
}

// TestEndpointsAreNotBlamedForWhatTheProxyLacks: without a descriptor there is no connection, and that says nothing of the endpoint.
func TestEndpointsAreNotBlamedForWhatTheProxyLacks(t *testing.T) {
	for errno, ours := range map[syscall.Errno]bool{syscall.EMFILE: true, syscall.EADDRNOTAVAIL: true, syscall.ECONNREFUSED: false} {
		err := &upstream.Error{Op: upstream.Connect, Address: "10.0.0.1:80", Err: fmt.Errorf("dial: %w", &net.OpError{Op: "dial", Err: os.NewSyscallError("socket", errno)})}
		if err.Ours() != ours || strings.Contains(err.Error(), "of this proxy") != ours {
			t.Errorf("%v: %v, %s", errno, err.Ours(), err)
		}
	}
}
