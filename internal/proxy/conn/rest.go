package conn

// rester is a Conn that can be waited for without a goroutine.
type rester interface {
	// OnReady runs f on a goroutine of its own as soon as Wait would return, once. It is false, and f is forgotten, if that is now.
	// Until f runs nobody may read or wait.
	OnReady(f func()) bool
	// Rests reports whether OnReady can do so.
	Rests() bool
}

// Rests reports whether c can be waited for without a goroutine, by OnReady.
func Rests(c Conn) bool {
	r, ok := c.(rester)
	return ok && r.Rests()
}

// OnReady runs f on a goroutine of its own as soon as Wait would return. It is false if that is now, or where c cannot do it, and f is
// forgotten then. A Wait on c must have timed out before, so that nothing of what comes has been read into memory. Until f runs
// nobody may read or wait.
func OnReady(c Conn, f func()) bool {
	r, ok := c.(rester)
	return ok && r.OnReady(f)
}

// OnReady waits for the connection once the prefix was read.
func (p *prefixed) OnReady(f func()) bool { return len(p.prefix) == 0 && OnReady(p.Conn, f) }

// Rests implements rester.
func (p *prefixed) Rests() bool { return Rests(p.Conn) }

// OnReady waits for the transport: when a Wait has timed out, crypto/tls holds no data, and perhaps a part of a record.
func (c *tlsConn) OnReady(f func()) bool {
	return !c.has && c.under.ahead.empty() && OnReady(c.under.c, f)
}

// Rests implements rester.
func (c *tlsConn) Rests() bool { return Rests(c.under.c) }
