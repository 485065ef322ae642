// Package ratelimit limits requests by token buckets that the proxy keeps, and describes requests for the limits that others keep. It
// decides only: whoever calls answers.
package ratelimit

import (
	"hash/maphash"
	"sync"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conf"
)

// Limiter holds the buckets of one limit. Its methods may be called from any goroutine; what they look up they find without a lock,
// but for buckets of open entries, which are kept in shards.
type Limiter struct {
	conf   *conf.LocalLimit
	bucket *bucket            // nil does not limit
	exact  map[string]*bucket // by key of all entries
	open   []*open
}

// open is a descriptor with entries that any value fulfils.
type open struct {
	entries []conf.LimitEntry
	bucket  conf.TokenBucket
	most    int // of a shard
	seed    maphash.Seed
	shards  [shards]shard
}

const shards = 16

type shard struct {
	mu      sync.Mutex
	buckets map[string]*bucket
	_       [48]byte // a line of the cache for each
}

// New makes the buckets of a limit, all full.
func New(c *conf.LocalLimit) *Limiter {
	l := &Limiter{conf: c, exact: map[string]*bucket{}}
	if c.Bucket != nil {
		l.bucket = newBucket(c.Bucket)
	}
	for i := range c.Descriptors {
		d := &c.Descriptors[i]
		if !isOpen(d.Entries) {
			l.exact[string(appendKey(nil, d.Entries))] = newBucket(&d.Bucket)
			continue
		}
		l.open = append(l.open, &open{entries: d.Entries, bucket: d.Bucket, most: max(c.MaxDynamic/shards, 1), seed: maphash.MakeSeed()})
	}
	return l
}

func isOpen(entries []conf.LimitEntry) bool {
	for _, e := range entries {
		if e.Value == "" {
			return true
		}
	}
	return false
}

// appendKey joins entries so that no two lists have one key.
func appendKey(b []byte, entries []conf.LimitEntry) []byte {
	for _, e := range entries {
		b = append(append(b, e.Key...), 0)
		b = append(append(b, e.Value...), 0)
	}
	return b
}

// Scratch is storage that one caller keeps from request to request.
type Scratch struct {
	entries []conf.LimitEntry
	key     []byte
}

// Verdict is what the buckets say of a request. Limit, Left, Reset and Bucket are those of the tightest; Limit is 0 where none counted it.
type Verdict struct {
	Over        bool
	Limit, Left uint32
	Reset       time.Duration // until it is full
	Bucket      *conf.TokenBucket
	Next        time.Duration // until there is a token for one that is over
}

// Check counts a request in the buckets that the rules (those of the route, unless the limit has its own) lead to. now is in Unix
// nanoseconds.
func (l *Limiter) Check(now int64, r *Request, rules [2][]conf.LimitRule, s *Scratch) Verdict {
	var v Verdict
	matched := false
	own := l.conf.Rules != nil // those are of no stage
	if own {
		rules = [2][]conf.LimitRule{l.conf.Rules}
	}
	for _, list := range rules {
		for i := range list {
			if !own && list[i].Stage != l.conf.Stage {
				continue
			}
			s.entries = Describe(s.entries, &list[i], r)
			if len(s.entries) == 0 {
				continue
			}
			if b := l.find(now, s); b != nil {
				matched = true
				v.count(b, now)
			}
		}
	}
	if l.bucket != nil && (!matched || l.conf.AlwaysBucket) && !v.Over {
		v.count(l.bucket, now)
	}
	clear(s.entries) // they point into the request
	return v
}

func (v *Verdict) count(b *bucket, now int64) {
	if v.Over {
		return
	}
	ok, left, reset := b.take(now)
	if !ok || v.Limit == 0 || left < v.Left {
		v.Over, v.Limit, v.Left, v.Reset, v.Bucket = !ok, b.conf.Max, left, reset, b.conf
		if !ok {
			v.Next = b.next(reset)
		}
	}
}

// find gives the bucket of the entries in s; nil when there is none.
func (l *Limiter) find(now int64, s *Scratch) *bucket {
	s.key = appendKey(s.key[:0], s.entries)
	if b := l.exact[string(s.key)]; b != nil {
		return b
	}
	for _, o := range l.open {
		if o.takes(s.entries) {
			return o.get(now, s.key)
		}
	}
	return nil
}

func (o *open) takes(entries []conf.LimitEntry) bool {
	if len(entries) != len(o.entries) {
		return false
	}
	for i, e := range o.entries {
		if e.Key != entries[i].Key || e.Value != "" && e.Value != entries[i].Value {
			return false
		}
	}
	return true
}

func (o *open) get(now int64, key []byte) *bucket {
	s := &o.shards[maphash.Bytes(o.seed, key)%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.buckets[string(key)]; b != nil {
		return b
	}
	if s.buckets == nil {
		s.buckets = map[string]*bucket{}
	}
	if len(s.buckets) >= o.most {
		s.evict(now)
	}
	b := newBucket(&o.bucket)
	s.buckets[string(key)] = b
	return b
}

// evict drops the buckets that are full, or else any one: a client that comes with ever new values must not fill the memory.
func (s *shard) evict(now int64) {
	before := len(s.buckets)
	for k, b := range s.buckets {
		if b.isFull(now) {
			delete(s.buckets, k)
		}
	}
	for k := range s.buckets {
		if len(s.buckets) < before {
			return
		}
		delete(s.buckets, k)
	}
}
