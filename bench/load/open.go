package load

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// OpenLoop sends requests at a fixed rate (per second) in turn over keep-alive connections, for d. A request whose connection is
// free is timed from when it is sent; one that has to wait for an earlier answer is timed from when it was due, so that a slow
// proxy cannot hide its delays by slowing the load.
func OpenLoop(ctx context.Context, t Target, connections int, rate float64, d time.Duration) (Result, error) {
	lanes := make([]*lane, connections)
	defer func() {
		for _, l := range lanes {
			if l != nil {
				l.conn.Close()
			}
		}
	}()
	for i := range lanes {
		nc, err := t.dial(ctx)
		if err != nil {
			return Result{}, fmt.Errorf("connection %d: %w", i, err)
		}
		lanes[i] = &lane{conn: nc, request: t.request(), idle: make(chan struct{}, 1)}
	}
	var readers sync.WaitGroup
	for _, l := range lanes {
		readers.Go(l.read) // ends when its connection is closed
	}
	start := time.Now()
	sent := pace(ctx, start, rate, d, func(k int, due time.Time) { lanes[k%connections].send(due) })
	took := time.Since(start)
	for _, l := range lanes {
		l.finish()
		l.conn.Close()
	}
	readers.Wait()
	return sum(lanes, sent, took), ctx.Err()
}

// pace calls send at each moment of the schedule and gives the number of calls. It sleeps in the kernel on a thread of its own:
// timers of Go's runtime are up to a millisecond late, and would bunch the requests.
func pace(ctx context.Context, start time.Time, rate float64, d time.Duration, send func(k int, due time.Time)) int {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const slack = 1 // nanosecond
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, slack, 0, 0, 0); err != nil {
		return 0 // not on Linux
	}
	total := int(rate * d.Seconds())
	for k := range total {
		due := start.Add(time.Duration(float64(k) / rate * float64(time.Second)))
		for wait := time.Until(due); wait > 0; wait = time.Until(due) {
			ts := unix.NsecToTimespec(int64(wait))
			if err := unix.ClockNanosleep(unix.CLOCK_MONOTONIC, 0, &ts, nil); err != nil && !errors.Is(err, unix.EINTR) {
				return k
			}
		}
		if ctx.Err() != nil {
			return k
		}
		send(k, due)
	}
	return total
}

// lane is one connection.
type lane struct {
	conn    net.Conn
	request []byte
	idle    chan struct{} // has a value when the last answer due has come, or the connection has failed

	mu     sync.Mutex
	since  time.Time   // of the request under way; zero for none
	queue  []time.Time // due meanwhile
	failed bool

	// Owned by the reader until it has ended.
	latencies []time.Duration
	bytes     int64
	refused   int
}

// send sends a request that is due now, or leaves it to the reader when one is under way.
func (l *lane) send(due time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed {
		return
	}
	if !l.since.IsZero() {
		l.queue = append(l.queue, due)
		return
	}
	l.since = time.Now()
	l.write()
}

// write is called with mu held. A request is far smaller than the socket's buffer, so it does not block.
func (l *lane) write() {
	if _, err := l.conn.Write(l.request); err != nil {
		l.fail()
	}
}

// fail is called with mu held.
func (l *lane) fail() {
	l.failed = true
	l.signal()
}

func (l *lane) signal() {
	select {
	case l.idle <- struct{}{}:
	default:
	}
}

func (l *lane) read() {
	r := bufio.NewReaderSize(l.conn, 4096)
	for {
		n, err := readAnswer(r)
		now := time.Now()
		l.mu.Lock()
		switch {
		case errors.Is(err, ErrStatus):
			l.refused++
		case err != nil:
			l.fail()
			l.mu.Unlock()
			return
		default:
			l.bytes += n
			l.latencies = append(l.latencies, now.Sub(l.since))
		}
		l.next()
		l.mu.Unlock()
	}
}

// next is called with mu held after an answer.
func (l *lane) next() {
	if len(l.queue) == 0 {
		l.since = time.Time{}
		l.signal()
		return
	}
	l.since, l.queue = l.queue[0], l.queue[1:]
	l.write()
}

// finish waits until every request has its answer, or gives up.
func (l *lane) finish() {
	timeout := time.NewTimer(ioTimeout)
	defer timeout.Stop()
	for {
		l.mu.Lock()
		done := l.failed || l.since.IsZero()
		l.mu.Unlock()
		if done {
			return
		}
		select {
		case <-l.idle:
		case <-timeout.C:
			return
		}
	}
}

// sum is called when no reader runs any more.
func sum(lanes []*lane, sent int, took time.Duration) Result {
	res := Result{Duration: took}
	var all []time.Duration
	for _, l := range lanes {
		all = append(all, l.latencies...)
		res.Bytes += l.bytes
	}
	res.Requests = len(all)
	res.Errors = sent - len(all)
	res.quantiles(all)
	return res
}
