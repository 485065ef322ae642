// Package slow says which clients take too little of what waits for them, so that their memory may be had when it is short.
package slow

import (
	"errors"
	"time"
)

// A reader is slow when it has taken less than Bytes in Time.
const (
	Time  = 5 * time.Second
	Bytes = 32 << 10
)

// ErrShed is the end of an answer for the want of memory.
var ErrShed = errors.New("memory is short, and the client took too little of the answer")

// Reader is what is known of a reader from looks at it: where it stood, and since when it has not got on.
type Reader struct {
	at    int64
	since time.Time // zero while nothing waits for it
}

// Look is told where the reader stands, if something waits for it; it gets on by steps.
func (r *Reader) Look(now time.Time, waits bool, at int64, step int64) {
	switch {
	case !waits:
		*r = Reader{}
	case r.since.IsZero() || at-r.at >= step:
		*r = Reader{at, now}
	}
}

// Slow reports whether it has not got on for Time.
func (r *Reader) Slow(now time.Time) bool { return !r.since.IsZero() && now.Sub(r.since) >= Time }
