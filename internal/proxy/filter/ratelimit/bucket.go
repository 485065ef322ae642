package ratelimit

import (
	"sync/atomic"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conf"
)

// bucket is a token bucket in one word: the time at which it will be full again. Its methods may be called from any goroutine.
type bucket struct {
	// Set once.
	conf  *conf.TokenBucket
	max   int64
	token int64 // nanoseconds in which one token comes

	full atomic.Int64 // Unix nanoseconds
}

func newBucket(c *conf.TokenBucket) *bucket {
	b := &bucket{conf: c, max: int64(c.Max)}
	b.token = max(int64(c.Interval)/max(int64(c.Fill), 1), 1)
	return b
}

// take takes a token if there is one. left are the tokens after that, reset is when the bucket will be full.
func (b *bucket) take(now int64) (ok bool, left uint32, reset time.Duration) {
	for {
		was := b.full.Load()
		full := max(was, now) + b.token
		if room := now + b.max*b.token - full; room < 0 {
			return false, 0, time.Duration(was - now)
		} else if b.full.CompareAndSwap(was, full) {
			return true, uint32(room / b.token), time.Duration(full - now)
		}
	}
}

// next is when a token comes, for a refusal that was told the time until the bucket is full.
func (b *bucket) next(reset time.Duration) time.Duration {
	return reset - time.Duration((b.max-1)*b.token)
}

// isFull reports whether nothing would be lost with the bucket.
func (b *bucket) isFull(now int64) bool { return b.full.Load() <= now }
