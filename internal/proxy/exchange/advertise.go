package exchange

import (
	"strconv"

	"github.com/weftmesh/weft/internal/proxy/message"
)

// advertise tells the client that HTTP/3 is to be had at the port that it uses (RFC 7838): whatever maps a public port to ours does
// so for UDP too.
func (x *Exchange) advertise() {
	if !x.d.HTTP3 || !x.d.OffersHTTP3() {
		return
	}
	_, port := message.HostPort(x.Req.Authority)
	if port == 0 {
		port = 443
	}
	x.res.Header.Set("Alt-Svc", `h3=":`+strconv.Itoa(int(port))+`"; ma=86400`)
}
