// Package record keeps what became of requests and relayed connections: lines of access logs, and series of metrics.
package record

import (
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"github.com/weftmesh/weft/internal/identity"
	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/telemetry"
	"github.com/weftmesh/weft/internal/wire"
)

// Options are what a book needs of the proxy around it.
type Options struct {
	Bootstrap *wire.Bootstrap
	Source    *identity.Source
	Metrics   *telemetry.Metrics
	Log       *slog.Logger
	// AccessLog takes the access log; nil opens what Bootstrap.AccessLog says, and io.Discard is for none. JSON chooses the format.
	AccessLog io.Writer
	JSON      bool
}

// Book has what is kept of requests and relayed connections: lines of access logs, and series of metrics.
type Book struct {
	o Options

	access *telemetry.Log // the bootstrap file's; nil for none. Set by open

	// The files that the control plane names, open from the first line until the proxy ends.
	mu     sync.Mutex
	byPath map[string]*telemetry.Log // nil for one that cannot be opened, and after the end
	ended  bool
}

// New makes a book.
func New(o Options) *Book { return &Book{o: o} }

// Open opens the access log of the bootstrap file, before anything is written.
func (b *Book) Open() (err error) {
	switch w := b.o.AccessLog; w {
	case io.Discard:
	case nil:
		b.access, err = telemetry.OpenLog(b.o.Bootstrap.AccessLog)
	default:
		b.access = telemetry.NewLog(w)
	}
	if b.access != nil {
		b.access.JSON = b.o.JSON
	}
	return err
}

// logAt gives the log of a path. The bootstrap file's, which may be the same, is not opened a second time.
func (b *Book) logAt(path string) *telemetry.Log {
	if path == b.o.Bootstrap.AccessLog || b.o.AccessLog != nil && path == "stdout" {
		return b.access
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	l, known := b.byPath[path]
	if known || b.ended {
		return l
	}
	l, err := telemetry.OpenLog(path)
	if err != nil {
		b.o.Log.Error("an access log cannot be opened: its lines are lost until the proxy starts anew", "path", path, "error", err)
	}
	if b.byPath == nil {
		b.byPath = map[string]*telemetry.Log{}
	}
	b.byPath[path] = l
	return l
}

// Close writes what is not written yet, and ends the logs.
func (b *Book) Close() {
	b.mu.Lock()
	b.ended = true
	for _, l := range b.byPath {
		l.Close()
	}
	b.mu.Unlock()
	b.access.Close()
}

// Dropped is the number of lines that all logs have lost.
func (b *Book) Dropped() uint64 {
	n := b.access.Dropped()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, l := range b.byPath {
		n += l.Dropped()
	}
	return n
}

// Silent reports whether nothing is logged where those logs are configured.
func (b *Book) Silent(configured []conf.AccessLog) bool {
	return b.access == nil && len(configured) == 0
}

// Write writes an entry to the configured logs, and where there are none to the bootstrap file's.
func (b *Book) Write(e *telemetry.Entry, configured []conf.AccessLog) {
	if len(configured) == 0 {
		b.access.Write(e)
		return
	}
	flag := func(name string) bool { return hasFlag(e.Flags, name) }
	for i := range configured {
		if l := &configured[i]; l.Filter.Passes(e.Code, e.Duration, flag) {
			b.logAt(l.Path).WriteAs(e, l.Format)
		}
	}
}

// hasFlag looks for a response flag among those of a line; "" is any.
func hasFlag(flags, name string) bool {
	if name == "" {
		return flags != "-" && flags != ""
	}
	for f := range strings.SplitSeq(flags, ",") {
		if f == name {
			return true
		}
	}
	return false
}

// flagOrder is the order in which Envoy writes several flags.
// Source: envoy/stream_info/stream_info.h, CoreResponseFlag.
var flagOrder = [...]string{"UH", "UT", "LR", "UR", "UF", "UC", "UO", "NR", "DI", "FI", "RL", "RLSE", "DC", "URX", "SI", "DPE", "UPE", "NC", "OM", "DR"}

// JoinFlags gives the flags of a set in Envoy's order.
func JoinFlags(set []string) string {
	var b strings.Builder
	for _, flag := range flagOrder {
		if !slices.Contains(set, flag) {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(flag)
	}
	return b.String()
}
