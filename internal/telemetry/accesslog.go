package telemetry

import (
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weftmesh/weft/internal/logformat"
)

// Log writes access log lines without ever making a request wait: what the writer cannot keep up with is dropped and counted.
type Log struct {
	// JSON writes objects instead of Envoy's text format; set before the first Write.
	JSON bool

	lines   chan *line
	free    sync.Pool
	dropped atomic.Uint64
	stop    chan struct{} // closed by Close
	once    sync.Once
	done    chan struct{}
	file    *os.File // closed by Close; nil for a writer that is somebody else's
}

type line struct{ b []byte }

const (
	queuedLines = 4096
	flushBytes  = 32 << 10
	flushAfter  = 200 * time.Millisecond
)

// NewLog starts the writer; Close ends it. w is used by one goroutine.
func NewLog(w io.Writer) *Log {
	l := &Log{lines: make(chan *line, queuedLines), stop: make(chan struct{}), done: make(chan struct{})}
	l.free.New = func() any { return &line{b: make([]byte, 0, 512)} }
	go l.run(w) // ends by Close
	return l
}

// OpenLog is NewLog for "stdout", "stderr" or a file, which is made where there is none. No path is no log: nil.
func OpenLog(path string) (*Log, error) {
	switch path {
	case "":
		return nil, nil
	case "stdout":
		return NewLog(os.Stdout), nil
	case "stderr":
		return NewLog(os.Stderr), nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return nil, fmt.Errorf("access log: %w", err)
	}
	l := NewLog(f)
	l.file = f
	return l, nil
}

// Write queues the entry's line. Entry's strings are not kept. A nil Log takes nothing.
func (l *Log) Write(e *Entry) { l.WriteAs(e, nil) }

// WriteAs is Write in a format of its own, which has to end lines itself; nil is the log's.
func (l *Log) WriteAs(e *Entry, f *logformat.Format) {
	if l == nil {
		return
	}
	n := l.free.Get().(*line)
	if f != nil {
		n.b = e.appendAs(n.b[:0], f)
	} else if l.JSON {
		n.b = e.appendJSON(n.b[:0])
	} else {
		n.b = e.appendText(n.b[:0])
	}
	select {
	case l.lines <- n:
	default:
		l.dropped.Add(1)
		l.free.Put(n)
	}
}

// Dropped is the number of lines lost so far.
func (l *Log) Dropped() uint64 {
	if l == nil {
		return 0
	}
	return l.dropped.Load()
}

// Close writes what is queued and ends the writer. Lines that come later are lost.
func (l *Log) Close() {
	if l == nil {
		return
	}
	l.once.Do(func() {
		close(l.stop)
		<-l.done
		if l.file != nil {
			_ = l.file.Close() // every line was given to the system before
		}
	})
	<-l.done
}

func (l *Log) run(w io.Writer) {
	defer close(l.done)
	var buf []byte
	flush := func() {
		if len(buf) > 0 {
			if _, err := w.Write(buf); err != nil {
				l.dropped.Add(1)
			}
			buf = buf[:0]
		}
	}
	timer := time.NewTimer(flushAfter)
	defer timer.Stop()
	armed := true // the line that comes after a silence is written at once, those that follow it together
	for {
		select {
		case n := <-l.lines:
			buf = l.take(buf, n)
			if len(buf) >= flushBytes || !armed {
				flush()
			}
			if !armed {
				timer.Reset(flushAfter)
				armed = true
			}
		case <-timer.C:
			if armed = len(buf) > 0; armed {
				flush()
				timer.Reset(flushAfter)
			}
		case <-l.stop:
			for {
				select {
				case n := <-l.lines:
					buf = l.take(buf, n)
					continue
				default:
				}
				flush()
				return
			}
		}
	}
}

func (l *Log) take(buf []byte, n *line) []byte {
	buf = append(buf, n.b...)
	l.free.Put(n)
	return buf
}
