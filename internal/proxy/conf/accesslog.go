package conf

import (
	"time"

	"github.com/weftmesh/weft/internal/logformat"
)

// AccessLog is a file that takes a line of each request or connection that passes the filter. Source:
// envoy.config.accesslog.v3.AccessLog.
type AccessLog struct {
	Path   string            // "stdout", "stderr" or a file
	Format *logformat.Format // nil for the proxy's own
	Filter *LogFilter        // nil lets everything pass
}

// LogFilter has exactly one field set.
type LogFilter struct {
	Code     *Comparison // the status
	Duration *Comparison // in milliseconds
	Flags    []string    // one of these response flags
	AnyFlag  bool        // any response flag
	All, Any []LogFilter
}

// Comparison is with Value.
type Comparison struct {
	Op    CompareOp
	Value int64
}

// CompareOp compares.
type CompareOp uint8

// The comparisons.
const (
	Equal CompareOp = iota
	AtLeast
	AtMost
	NotEqual
)

// Holds reports whether v compares so.
func (c *Comparison) Holds(v int64) bool {
	switch c.Op {
	case AtLeast:
		return v >= c.Value
	case AtMost:
		return v <= c.Value
	case NotEqual:
		return v != c.Value
	}
	return v == c.Value
}

// Passes reports whether a line is to be written. flag tells whether the request or connection has a response flag, "" for any.
func (f *LogFilter) Passes(code int, took time.Duration, flag func(string) bool) bool {
	switch {
	case f == nil:
		return true
	case f.Code != nil:
		return f.Code.Holds(int64(code))
	case f.Duration != nil:
		return f.Duration.Holds(took.Milliseconds())
	case f.AnyFlag:
		return flag("")
	case len(f.All) > 0:
		for i := range f.All {
			if !f.All[i].Passes(code, took, flag) {
				return false
			}
		}
		return true
	}
	for _, name := range f.Flags {
		if flag(name) {
			return true
		}
	}
	for i := range f.Any {
		if f.Any[i].Passes(code, took, flag) {
			return true
		}
	}
	return false
}
