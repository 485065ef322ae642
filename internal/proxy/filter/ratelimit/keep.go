package ratelimit

import (
	"sync"
	"sync/atomic"

	"github.com/weftmesh/weft/internal/proxy/conf"
)

// Keeper keeps the limiters of all limits in use. The zero value is ready; its methods may be called from any goroutine.
type Keeper struct {
	byConf sync.Map // *conf.LocalLimit to *Limiter
	known  atomic.Int64

	mu    sync.Mutex
	byKey map[string]*Limiter
}

// maxKept bounds the limiters that are remembered, those of configuration that is no more included. When there are more all begin
// anew, with full buckets.
const maxKept = 4096

// Get gives the limiter of a limit. One that is configured anew without a change keeps its buckets.
func (k *Keeper) Get(c *conf.LocalLimit) *Limiter {
	if l, ok := k.byConf.Load(c); ok {
		return l.(*Limiter)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.byKey == nil || len(k.byKey) >= maxKept || k.known.Load() >= maxKept {
		k.byConf.Clear()
		k.known.Store(0)
		if len(k.byKey) >= maxKept || k.byKey == nil {
			k.byKey = map[string]*Limiter{}
		}
	}
	l := k.byKey[c.Key]
	if l == nil {
		l = New(c)
		k.byKey[c.Key] = l
	}
	if _, loaded := k.byConf.LoadOrStore(c, l); !loaded {
		k.known.Add(1)
	}
	return l
}
