package conn

// WithPrefix gives a Conn that reads prefix first and c after it: what was sniffed, or read by a codec beyond the message
// after which the protocol changed. It keeps prefix until it was read.
func WithPrefix(c Conn, prefix []byte) Conn {
	if len(prefix) == 0 {
		return c
	}
	return &prefixed{Conn: c, prefix: prefix}
}

type prefixed struct {
	Conn
	prefix []byte // owned by the reading goroutine
}

func (p *prefixed) Read(b []byte) (int, error) {
	if len(p.prefix) == 0 {
		return p.Conn.Read(b)
	}
	n := copy(b, p.prefix)
	if p.prefix = p.prefix[n:]; len(p.prefix) == 0 {
		p.prefix = nil
	}
	return n, nil
}

// Wait returns at once while bytes of the prefix remain.
func (p *prefixed) Wait() error {
	if len(p.prefix) > 0 {
		return nil
	}
	return p.Conn.Wait()
}

func (p *prefixed) Quiet() bool { return len(p.prefix) == 0 && Quiet(p.Conn) }
