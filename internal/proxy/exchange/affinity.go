package exchange

import "github.com/weftmesh/weft/internal/proxy/route"

// hash finds the key of consistent hashing. It is found once: a retry starts from the same endpoint. Where a policy wants a cookie
// and the client has none, the response brings one.
func (x *Exchange) hash() {
	if x.matched.Route == nil || x.matched.Route.Forward == nil {
		return
	}
	fresh := x.p.random64()
	key, wanted, ok := route.Hash(x.matched.Route.Forward.Hash, &x.Req, x.d.Remote.Addr(), fresh)
	if wanted != nil {
		x.sticky = route.NewCookie(wanted, fresh)
	}
	x.choice.Hash, x.choice.Hashed = key, ok
}
