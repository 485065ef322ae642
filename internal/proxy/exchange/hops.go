package exchange

import (
	"net/http"
	"strconv"

	"github.com/weftmesh/weft/internal/proxy/message"
)

// endsHere reports whether a request was meant for the proxy itself: it is an OPTIONS or TRACE that must not be passed on any
// further (RFC 9110 section 7.6.2). Of others the hops that are left are counted down.
func (x *Exchange) endsHere() bool {
	if m := x.Req.Method; m != "OPTIONS" && m != "TRACE" {
		return false
	}
	v, ok := x.Req.Header.Get("Max-Forwards")
	if !ok {
		return false
	}
	n, ok := message.ParseLength(v)
	if ok && n > 0 {
		x.Req.Header.Set("Max-Forwards", strconv.FormatInt(n-1, 10))
	}
	return ok && n == 0
}

// answerSelf answers a request that is for the proxy itself, by RFC 9110 sections 9.3.7 and 9.3.8: OPTIONS succeeds, TRACE, which
// would show what other proxies have added, is not allowed.
func (x *Exchange) answerSelf() {
	x.res.Reset()
	x.res.Status = http.StatusOK
	if x.Req.Method == "TRACE" {
		x.res.Status = http.StatusMethodNotAllowed
		x.res.Header.Add("Allow", "OPTIONS")
	}
	x.answer(nil)
}
