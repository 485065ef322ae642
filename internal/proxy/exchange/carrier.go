package exchange

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weftmesh/weft/internal/proxy/downstream"
	"github.com/weftmesh/weft/internal/proxy/filter/ratelimit"
	"github.com/weftmesh/weft/internal/proxy/mirror"
	"github.com/weftmesh/weft/internal/proxy/overload"
	"github.com/weftmesh/weft/internal/proxy/side"
	"github.com/weftmesh/weft/internal/telemetry"
	"github.com/weftmesh/weft/internal/wire"
)

// Options are what exchanges need of the proxy around them.
type Options struct {
	*downstream.Mesh
	Bootstrap *wire.Bootstrap
	Guard     *overload.Guard
	Log       *slog.Logger
	// Closing reports whether a connection, of our own workload or another, shall carry no further request.
	Closing func(outbound bool) bool
	Now     func() time.Time
}

// Carrier carries exchanges: it has what they share.
type Carrier struct {
	Options
	ctx context.Context // of open

	exchanges sync.Pool
	countings sync.Pool
	limits    ratelimit.Keeper
	services  services
	clock     atomic.Pointer[dateText]

	Mirrors mirror.Mirrors
	Unasked atomic.Uint64 // requests of which a rate-limit service has said nothing
	Panics  atomic.Uint64 // in exchanges
}

// New makes a carrier.
func New(o Options) *Carrier {
	c := &Carrier{Options: o, Mirrors: mirror.Mirrors{Clusters: o.Clusters, Now: o.Now}}
	c.exchanges.New = func() any { return &Exchange{} }
	c.countings.New = func() any { return &counting{} }
	return c
}

// Open comes before the first exchange: when ctx ends, so does what is left of them.
func (c *Carrier) Open(ctx context.Context) {
	c.ctx = ctx
	c.Mesh.Open(ctx)
}

// Close waits for what exchanges have left running, once the last of them has ended.
func (c *Carrier) Close() {
	c.services.close()
	c.Mirrors.Wait()
}

// Begin takes an exchange for the request that is about to be read.
func (c *Carrier) Begin(d *downstream.Client, down side.Client) *Exchange {
	x := c.exchanges.Get().(*Exchange)
	x.p, x.d, x.down, x.Start, x.upstreamTime = c, d, down, c.Now(), -1
	return x
}

// Discard gives an exchange back. Nothing may point into it any more.
func (c *Carrier) Discard(x *Exchange) {
	x.Req.Reset()
	x.res.Reset()
	x.progress = progress{}
	if !x.entry.Start.IsZero() {
		x.entry = telemetry.Entry{}
	}
	c.exchanges.Put(x)
}

func (c *Carrier) random32() uint32 { return rand.Uint32() }
func (c *Carrier) random64() uint64 { return rand.Uint64() }

// dateText is the Date of one second.
type dateText struct {
	second int64
	text   string
}

// date gives the time in the form of RFC 9110 section 5.6.7.
func (c *Carrier) date(now time.Time) string {
	if d := c.clock.Load(); d != nil && d.second == now.Unix() {
		return d.text
	}
	d := &dateText{now.Unix(), now.UTC().Format(http.TimeFormat)}
	c.clock.Store(d)
	return d.text
}
