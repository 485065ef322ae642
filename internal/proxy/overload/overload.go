// Package overload keeps a proxy standing when more comes than it can bear: it counts connections and requests against limits, and
// watches memory and descriptors, so that load is turned away before the kernel ends the process, and accepted only where there is something
// left to serve it with.
package overload

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/weftmesh/weft/internal/proxy/spare"
)

// Stage is how short of memory, or of descriptors, the process is.
type Stage int32

// The stages. Each does what those before it do.
const (
	Normal Stage = iota
	// Shrink closes idle connections and has the others end after their request.
	Shrink
	// Refuse answers new requests with an error.
	Refuse
	// Stop takes no connections in.
	Stop
)

// String names the stage as metrics and logs do.
func (s Stage) String() string { return [...]string{"normal", "shrink", "refuse", "stop"}[s] }

// Limits are what a proxy bears; 0 is no limit.
type Limits struct {
	// Connections of clients, in the whole process and at one listener.
	Connections, ListenerConnections int64
	// Requests under way, relayed connections not counted.
	Requests int64
	// Memory is what the process may use, in bytes.
	Memory int64
	// Bearable are the connections of clients for which there are descriptors, see Bearable. Others are left in the kernel's queue,
	// and those that are there make room for them, as in stage Shrink.
	Bearable int64
}

// The shares of Limits.Memory, in thousandths, from which the stages hold. One ends when the use is by margin below its share: at the
// edge it would come and go with each look.
var shares = [...]int64{Shrink: 850, Refuse: 920, Stop: 970}

const margin = 30

// What a connection, and a request on it, may come to hold: until memory was looked at after it came, that much is kept for it.
const (
	perConnection = 64 << 10
	perRequest    = 48 << 10
	// perQUIC is what a connection of QUIC may hold besides: what was sent and is not acknowledged lies in the process, not in the kernel.
	perQUIC = 192 << 10
)

// spareShare is the part of Limits.Memory that buffers may take which can be done without: one in so many.
const spareShare = 8

// Guard counts and watches. Its methods may be called from any goroutine.
type Guard struct {
	limits Limits
	used   func() int64 // bytes
	relief func()       // gives memory back to the system
	// MakeRoom closes idle connections when the table of descriptors is found full, and gives their number. It is set once, before use,
	// and may be nil.
	MakeRoom func() int
	// Shed looks for answers that clients do not take, and with cut ends those that hold the most. It gives their number; it is set once,
	// before use, and may be nil.
	Shed func(cut bool) int

	bearable, exhausted   atomic.Int64
	roomAt, fullAt        atomic.Int64 // Unix nanoseconds; 0 for never
	connections, requests atomic.Int64
	quic                  atomic.Int64 // of the connections
	stage                 atomic.Int32
	released              atomic.Bool
	turnedAway, refused   atomic.Uint64
	shed                  atomic.Uint64
	memory                atomic.Int64
	// The fewest connections and requests that there were of late, and the least memory in use, which theirs is part of.
	seen struct{ connections, quic, requests, memory fewest }
}

// fewest is the least of a count in the last while. The goroutine that looks writes it.
type fewest struct {
	least        atomic.Int64
	before, here int64 // in the while before and in the present one
}

func (f *fewest) look(n int64, turn bool) {
	if turn {
		f.before, f.here = f.here, n
	}
	f.here = min(f.here, n)
	f.least.Store(min(f.before, f.here))
}

// New makes a guard. used tells the memory of the process, and relief tries to lessen it; both may be nil when Limits.Memory is 0.
func New(l Limits, used func() int64, relief func()) *Guard {
	g := &Guard{limits: l, used: used, relief: relief}
	g.Bears(l.Bearable)
	return g
}

// Bears changes Limits.Bearable, and reports whether that is a change: the table of descriptors may be made smaller or larger meanwhile.
func (g *Guard) Bears(connections int64) (changed bool) {
	return g.bearable.Swap(connections) != connections
}

// lookEvery is how often memory is looked at, and briskly how often from the share brisk of the limit on: what a process can fill meanwhile
// must fit between the last stage and the limit.
const (
	lookEvery = 100 * time.Millisecond
	briskly   = 10 * time.Millisecond
	brisk     = 600
)

// settling is how long connections and requests take to have most of what they need.
const settling = 500 * time.Millisecond

// reliefEvery is how often memory is given back while there is too little of it, and reliefSoon while requests are refused.
const (
	reliefEvery = 5 * time.Second
	reliefSoon  = time.Second
)

// shedEvery is how often answers that nobody takes are looked for meanwhile: what ending some of them gives is to be seen before others are.
const shedEvery = 500 * time.Millisecond

// Run watches memory until ctx ends.
func (g *Guard) Run(ctx context.Context, log *slog.Logger) {
	if g.limits.Memory <= 0 {
		return
	}
	spare.Limit(g.limits.Memory / spareShare)
	defer spare.Limit(0)
	defer spare.Short(false)
	at := g.used()
	g.seen.memory.before, g.seen.memory.here = at, at
	look := time.NewTimer(lookEvery)
	defer look.Stop()
	var last times
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-look.C:
			g.watch(now, &last, log)
			look.Reset(g.pause())
		}
	}
}

// times are when things were last done.
type times struct{ relieved, shed, turned time.Time }

// watch looks at memory and does what there is to do.
func (g *Guard) watch(now time.Time, last *times, log *slog.Logger) {
	before := Stage(g.stage.Load())
	stage := g.look()
	if stage != before {
		log.Warn("memory", "stage", stage.String(), "before", before.String(), "used", g.memory.Load(), "limit", g.limits.Memory)
	}
	turn := now.Sub(last.turned) >= settling
	if turn {
		last.turned = now
	}
	g.seen.connections.look(g.connections.Load(), turn)
	g.seen.quic.look(g.quic.Load(), turn)
	g.seen.requests.look(g.requests.Load(), turn)
	g.seen.memory.look(g.memory.Load(), turn)
	if stage > Normal && now.Sub(last.shed) >= shedEvery {
		last.shed = now
		if g.ends(log) {
			last.relieved = time.Time{}
		}
	}
	every := reliefEvery
	if stage >= Refuse {
		every = reliefSoon
	}
	if g.Stage() > Normal && now.Sub(last.relieved) >= every {
		last.relieved = now
		g.relief()
	}
}

// pause is how long memory need not be looked at.
func (g *Guard) pause() time.Duration {
	if g.share(g.memory.Load()) >= brisk {
		return briskly
	}
	return lookEvery
}

// share gives the thousandths of the limit that so many bytes are.
func (g *Guard) share(bytes int64) int64 { return bytes / max(g.limits.Memory/1000, 1) }

// promised reports whether memory reaches the share of a stage when those who have just come have what they may need: at least half of that
// is still to come, and all of it where memory has not grown since.
func (g *Guard) promised(s Stage) bool {
	if g.limits.Memory <= 0 {
		return false
	}
	more := max(g.connections.Load()-g.seen.connections.least.Load(), 0)*perConnection +
		max(g.quic.Load()-g.seen.quic.least.Load(), 0)*perQUIC +
		max(g.requests.Load()-g.seen.requests.least.Load(), 0)*perRequest
	return more > 0 && g.share(max(g.memory.Load()+more/2, g.seen.memory.least.Load()+more)) >= shares[s]
}

// ends reports whether it ended answers that clients do not take.
func (g *Guard) ends(log *slog.Logger) bool {
	if g.Shed == nil {
		return false
	}
	n := g.Shed(Stage(g.stage.Load()) >= Refuse)
	if n > 0 {
		g.shed.Add(uint64(n))
		log.Warn("memory is short: answers end of which clients took too little", "answers", n)
	}
	return n > 0
}

// look sets the stage by the memory in use.
func (g *Guard) look() Stage {
	used := g.used()
	g.memory.Store(used)
	share := g.share(used)
	was := Stage(g.stage.Load())
	next := Normal
	for s := Shrink; s <= Stop; s++ {
		if from := shares[s]; share >= from || was >= s && share >= from-margin {
			next = s
		}
	}
	g.stage.Store(int32(next))
	spare.Short(next > Normal)
	return next
}

// Stage tells how short of memory, or of descriptors, the process is.
func (g *Guard) Stage() Stage {
	s := Stage(g.stage.Load())
	if s == Normal && (g.crowded() || g.wasFull()) {
		return Shrink
	}
	return s
}

// Exhausted is told that the system had no descriptor for a connection.
func (g *Guard) Exhausted() {
	g.exhausted.Add(1)
	now := time.Now().UnixNano()
	last := g.roomAt.Load()
	if now-last < int64(roomEvery) || !g.roomAt.CompareAndSwap(last, now) {
		return // another has just made room
	}
	if g.MakeRoom == nil || g.MakeRoom() == 0 {
		g.fullAt.Store(now)
	}
}

const (
	// roomEvery bounds what looking for idle connections costs.
	roomEvery = 5 * time.Millisecond
	// fullTime is how long connections end after their request where none was idle.
	fullTime = 500 * time.Millisecond
)

func (g *Guard) wasFull() bool {
	at := g.fullAt.Load()
	if at == 0 {
		return false
	}
	if time.Since(time.Unix(0, at)).Abs() < fullTime {
		return true
	}
	g.fullAt.CompareAndSwap(at, 0)
	return false
}

// crowded reports whether there are as many connections as there are descriptors for.
func (g *Guard) crowded() bool {
	most := g.bearable.Load()
	return most > 0 && g.connections.Load() >= most
}

// Release has no connection wait any more: the listeners are being closed, and what waits is nobody else's.
func (g *Guard) Release() { g.released.Store(true) }

// EnterRequest counts a request in if it may be served; then LeaveRequest counts it out.
func (g *Guard) EnterRequest() bool {
	n := g.requests.Add(1)
	if g.limits.Requests > 0 && n > g.limits.Requests || g.Stage() >= Refuse || g.promised(Refuse) {
		g.requests.Add(-1)
		g.refused.Add(1)
		return false
	}
	return true
}

// LeaveRequest ends what EnterRequest began.
func (g *Guard) LeaveRequest() { g.requests.Add(-1) }

// Gate is the guard's part at one listener.
type Gate struct {
	g    *Guard
	quic bool
	open atomic.Int64
}

// Gate makes the gate of a listener.
func (g *Guard) Gate() *Gate { return &Gate{g: g} }

// QUICGate makes that of a listener of QUIC.
func (g *Guard) QUICGate() *Gate { return &Gate{g: g, quic: true} }

// Enter counts a connection in if it may be taken; then Leave counts it out.
func (l *Gate) Enter() bool {
	g := l.g
	if l.quic {
		g.quic.Add(1)
	}
	all, own := g.connections.Add(1), l.open.Add(1)
	if g.limits.Connections > 0 && all > g.limits.Connections || g.limits.ListenerConnections > 0 && own > g.limits.ListenerConnections || l.Closed() {
		l.Leave()
		g.turnedAway.Add(1)
		return false
	}
	return true
}

// Refuses is Full and Closed of a listener of QUIC, where none can wait: who comes is turned away.
func (l *Gate) Refuses() bool {
	if !l.Full() && !l.Closed() {
		return false
	}
	l.g.turnedAway.Add(1)
	return true
}

// Leave ends what Enter began.
func (l *Gate) Leave() {
	if l.quic {
		l.g.quic.Add(-1)
	}
	l.g.connections.Add(-1)
	l.open.Add(-1)
}

// Closed reports whether nothing should be accepted now: what waits in the kernel's queue costs less than here.
func (l *Gate) Closed() bool { return l.g.Stage() >= Stop }

// Full reports whether a connection would be one too many for the descriptors that there are, or for the memory that is left until it is
// known what those need that have just come.
func (l *Gate) Full() bool {
	g := l.g
	return (g.crowded() || g.promised(Stop) && g.Stage() < Stop) && !g.released.Load()
}

// Exhausted is the guard's.
func (l *Gate) Exhausted() { l.g.Exhausted() }

// Facts are what metrics tell.
type Facts struct {
	Stage                 Stage
	Connections, Requests int64
	// TurnedAway are connections, Refused requests, that were not served.
	TurnedAway, Refused uint64
	// Shed are answers that were ended because clients did not take them.
	Shed uint64
	// Exhausted is how often the system had no descriptor for a connection, Bearable how many of clients there are descriptors for.
	Exhausted, Bearable int64
	// Memory in use, as last seen, and its limit, in bytes; that is 0 where there is none.
	Memory, MemoryLimit int64
}

// Facts gives the present ones.
func (g *Guard) Facts() Facts {
	if g.limits.Memory <= 0 && g.used != nil {
		g.memory.Store(g.used()) // nobody looks
	}
	return Facts{Stage: g.Stage(), Connections: g.connections.Load(), Requests: g.requests.Load(), TurnedAway: g.turnedAway.Load(),
		Refused: g.refused.Load(), Shed: g.shed.Load(), Exhausted: g.exhausted.Load(), Bearable: g.bearable.Load(), Memory: g.memory.Load(), MemoryLimit: g.limits.Memory}
}
