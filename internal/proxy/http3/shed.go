package http3

import (
	"time"

	"github.com/quic-go/quic-go"
	quichttp "github.com/quic-go/quic-go/http3"

	"github.com/weftmesh/weft/internal/proxy/slow"
)

// mute is what is known of a client's acknowledgements: what it has not acknowledged is kept, even of streams that were reset.
type mute struct {
	reader slow.Reader
	heard  uint64 // packets of the client's
	sent   uint64 // packets to it, and bytes, when it was last heard
	bytes  uint64
	held   uint64 // bytes since then
}

const (
	// probes without an answer tell that something is to be acknowledged; what was just sent may be an acknowledgement.
	probes = 4
	// heldUnit is what clients are compared by, see track.Conn.
	heldUnit = 128 << 10
)

func (m *mute) look(now time.Time, s *quic.ConnectionStats) {
	if s.PacketsReceived != m.heard {
		m.heard, m.sent, m.bytes = s.PacketsReceived, s.PacketsSent, s.BytesSent
	}
	m.held = s.BytesSent - m.bytes
	m.reader.Look(now, s.PacketsSent-m.sent >= probes, int64(m.heard), 1)
}

// Slow looks at what waits for the client, and gives how many answers it has been slow with for as long as this was called often enough; one
// that acknowledges nothing counts by what it was sent meanwhile.
func (c *Conn) Slow(now time.Time) (n int) {
	cl := c.of
	stats := c.quic.ConnectionStats()
	cl.s.mu.Lock()
	defer cl.s.mu.Unlock()
	for st := range cl.streams {
		if st.looked(now) {
			n++
		}
	}
	if cl.mute.look(now, &stats); cl.mute.reader.Slow(now) {
		n += 1 + int(cl.mute.held/heldUnit)
	}
	return n
}

// Shed breaks those answers off, and closes the connection of a client that acknowledges nothing. It gives the number of answers.
func (c *Conn) Shed(now time.Time) (n int) {
	cl := c.of
	cl.s.mu.Lock()
	mute := cl.mute.reader.Slow(now)
	for st := range cl.streams {
		if mute || st.writing.Load() && st.slow.Slow(now) {
			st.shed.Store(true)
			st.breakOff()
			n++
		}
	}
	cl.s.mu.Unlock()
	if mute {
		_ = c.quic.CloseWithError(quic.ApplicationErrorCode(quichttp.ErrCodeExcessiveLoad), "memory is short") // it may have ended
	}
	return n
}
