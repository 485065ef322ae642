// Package poll is the Linux back end of conn.Conn: goroutines that are parked and woken by pollers of our own.
//
// Each poller owns an edge-triggered epoll set. The descriptor of that set is itself parked on Go's netpoller, so that no thread
// blocks in a system call of its own and an idle proxy sleeps. What the pollers report is remembered by connection: a read is
// made when there is something to read, and never to be told that there is nothing. Deadlines are entries in a heap of the poller,
// looked at when they pass and not whenever they are moved. docs/adr/0005-io-back-end.md has the measurements.
//
// A blocked connection blocks its goroutine and nothing else, so callers may hold locks, use channels and call libraries as
// anywhere in Go.
package poll
