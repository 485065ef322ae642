//go:build !unix

package conn

// newSocket gives nil: without MSG_DONTWAIT every connection waits by reading ahead.
func newSocket(netConn) *socket { return nil }

func (s *socket) Wait() error { panic("conn: a socket without its system calls") }

func setBreaks(uintptr, bool) {}
