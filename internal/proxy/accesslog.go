package proxy

import (
	"io"
	"strings"
	"sync"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/message"
	"github.com/weftmesh/weft/internal/telemetry"
)

// openAccessLog starts the access log of the bootstrap file; nil for none.
func (p *Proxy) openAccessLog() (l *telemetry.Log, err error) {
	switch w := p.opt.AccessLog; w {
	case io.Discard:
	case nil:
		l, err = telemetry.OpenLog(p.opt.Bootstrap.AccessLog)
	default:
		l = telemetry.NewLog(w)
	}
	if l != nil {
		l.JSON = p.opt.AccessLogJSON
	}
	return l, err
}

// accessLogs are the files that the control plane names, open from the first line until the proxy ends.
type accessLogs struct {
	mu     sync.Mutex
	byPath map[string]*telemetry.Log // nil for one that cannot be opened, and after the end
	ended  bool
}

// accessLogAt gives the log of a path. The bootstrap file's, which may be the same, is not opened a second time.
func (p *Proxy) accessLogAt(path string) *telemetry.Log {
	if path == p.opt.Bootstrap.AccessLog || p.opt.AccessLog != nil && path == "stdout" {
		return p.access
	}
	a := &p.accessLogs
	a.mu.Lock()
	defer a.mu.Unlock()
	l, known := a.byPath[path]
	if known || a.ended {
		return l
	}
	l, err := telemetry.OpenLog(path)
	if err != nil {
		p.log.Error("an access log cannot be opened: its lines are lost until the proxy starts anew", "path", path, "error", err)
	}
	if a.byPath == nil {
		a.byPath = map[string]*telemetry.Log{}
	}
	a.byPath[path] = l
	return l
}

func (a *accessLogs) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ended = true
	for _, l := range a.byPath {
		l.Close()
	}
}

// droppedLines is the number of lines that all logs have lost.
func (p *Proxy) droppedLines() uint64 {
	n := p.access.Dropped()
	p.accessLogs.mu.Lock()
	defer p.accessLogs.mu.Unlock()
	for _, l := range p.accessLogs.byPath {
		n += l.Dropped()
	}
	return n
}

// writeAccess writes an entry to the configured logs, and where there are none to the bootstrap file's.
func (p *Proxy) writeAccess(e *telemetry.Entry, configured []conf.AccessLog) {
	if len(configured) == 0 {
		p.access.Write(e)
		return
	}
	flag := func(name string) bool { return hasFlag(e.Flags, name) }
	for i := range configured {
		if l := &configured[i]; l.Filter.Passes(e.Code, e.Duration, flag) {
			p.accessLogAt(l.Path).WriteAs(e, l.Format)
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

// accessLogs are those that the configuration names for the request. Before its route is looked up, the connection's count.
func (x *exchange) accessLogs() []conf.AccessLog {
	switch {
	case x.http != nil:
		return x.http.AccessLogs
	case x.d.http != nil:
		return x.d.http.AccessLogs
	case x.d.direction == outbound && x.snapshot != nil && x.snapshot.Unknown != nil:
		return x.snapshot.Unknown.AccessLogs
	}
	return nil
}

// keepFields takes the header fields that the formats name: the upstream's strings live no longer than the exchange holds its
// connection.
func (x *exchange) keepFields() {
	for _, l := range x.accessLogs() {
		if l.Format == nil {
			continue
		}
		x.entry.Request = keepFields(x.entry.Request, l.Format.Request, &x.req.Header)
		x.entry.Response = keepFields(x.entry.Response, l.Format.Response, &x.res.Header)
	}
}

func keepFields(kept []telemetry.HeaderValue, names []string, h *message.Header) []telemetry.HeaderValue {
	for _, name := range names {
		if v, ok := h.Get(name); ok {
			kept = append(kept, telemetry.HeaderValue{Name: name, Value: strings.Clone(v)})
		}
	}
	return kept
}
