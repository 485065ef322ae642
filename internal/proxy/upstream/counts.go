package upstream

import (
	"errors"
	"sync/atomic"
)

// Counts counts what became of a cluster's attempts to connect. It outlives the cluster's versions.
type Counts struct {
	Connected, Failed, TimedOut  atomic.Int64
	Handshakes, HandshakesFailed atomic.Int64
}

// note counts one attempt; a nil Counts counts nothing.
func (n *Counts) note(err error, secure bool) {
	if n == nil {
		return
	}
	var e *Error
	switch {
	case err == nil:
		n.Connected.Add(1)
		if secure {
			n.Handshakes.Add(1)
		}
	case errors.As(err, &e) && e.Op == Handshake:
		n.HandshakesFailed.Add(1)
		n.Failed.Add(1)
	default:
		n.Failed.Add(1)
		if e != nil && e.Timeout() {
			n.TimedOut.Add(1)
		}
	}
}
