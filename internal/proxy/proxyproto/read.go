package proxyproto

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conn"
)

// Read takes the header off a connection within the time limit, and gives a Conn that reads what comes after it. ErrNone, with a
// Conn that reads everything that came, means that there is no header; other errors are those of a malformed one or of the
// connection.
func Read(c conn.Conn, limit time.Duration) (Header, conn.Conn, error) {
	if err := c.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return Header{}, c, err
	}
	h, rest, err := read(c)
	if e := c.SetReadDeadline(time.Time{}); err == nil {
		err = e
	}
	return h, conn.WithPrefix(c, rest), err
}

func read(c conn.Conn) (h Header, rest []byte, err error) {
	seen := make([]byte, 0, 256)
	for {
		if len(seen) == cap(seen) {
			seen = append(seen, 0)[:len(seen)]
		}
		got, readErr := c.Read(seen[len(seen):cap(seen)])
		seen = seen[:len(seen)+got]
		if len(seen) > 0 {
			h, n, err := Parse(seen)
			if n > 0 || err != nil {
				return h, seen[n:], err
			}
		}
		switch {
		case readErr == nil:
		case errors.Is(readErr, io.EOF):
			return h, seen, fmt.Errorf("the connection ends within the PROXY protocol header: %w", io.ErrUnexpectedEOF)
		default:
			return h, seen, readErr
		}
	}
}
