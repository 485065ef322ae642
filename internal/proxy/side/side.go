// Package side is what the exchange of a request needs of the connections on its two sides, in whatever version of HTTP: the client's,
// and the endpoint's.
package side

import (
	"context"
	"net/netip"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conn"
	"github.com/weftmesh/weft/internal/proxy/message"
	"github.com/weftmesh/weft/internal/proxy/relay"
)

// Client is what an exchange needs of the side that its request came from, in whatever version of HTTP. One goroutine uses the
// reading half while another may use the writing half.
type Client interface {
	relay.Source
	relay.Sink
	replier
	presence
	// BodyDone reports whether the request's body was read to its end; BodyWhole whether all of it has arrived.
	BodyDone() bool
	BodyWhole() bool
	// SetReadDeadline and SetWriteDeadline make pending and later reads of the body, or writes, fail with os.ErrDeadlineExceeded.
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
	// Interruptible reports whether the body can be read on after a read deadline has interrupted that, once Resume was called.
	Interruptible() bool
	Resume()
	// Shared reports whether what goes wrong with this request leaves others unharmed.
	Shared() bool
	// Break gives the response up half way: the client is told so with that code of HTTP/2, or by the end of the connection.
	Break(code uint32)
}

// replier is the part of a client that takes heads.
type replier interface {
	WriteInformational(status int, h *message.Header) error
	WriteResponse(r *message.Response) error
	// CloseAfter makes this request the last one of its connection, as far as the client is told so in time.
	CloseAfter()
	// Hijack gives the bytes that follow a 101 or an answer to CONNECT. The strings of the request die.
	Hijack() (conn.Conn, error)
}

// presence is the part of a client that notices its leaving.
type presence interface {
	// Await begins the wait for the answer to a call of a request that came at start: when the client leaves meanwhile, the call is
	// cut. streams says that the client sends its body at the same time. It is false where there is nothing to be ended by awaited.
	Await(up Call, start time.Time, streams bool) bool
	// Awaited ends the wait and reports whether the client has left.
	Awaited(now time.Time) (gone bool)
	// Left reports whether the client is known to have left.
	Left() bool
	// Pause waits for d unless the client leaves or ctx ends, and then reports false. quiet says that the client has nothing to
	// send before it is answered.
	Pause(ctx context.Context, d time.Duration, quiet bool) bool
	// Forget comes before the call's End: the client's leaving must not cut it any more.
	Forget()
}

// Call is what an exchange needs of the side that it sends its request to: one request on a connection to an endpoint.
type Call interface {
	relay.Source
	relay.Sink
	connected
	// WriteRequest and ReadResponse are those of the codecs.
	WriteRequest(r *message.Request) error
	ReadResponse(r *message.Response) error
	// ResponseStarted reports whether a byte of the response has arrived, Stale whether the request shares its connection's fate
	// with earlier ones: an endpoint may have given it up before this request came.
	ResponseStarted() bool
	Stale() bool
	// Shared is as for a client.
	Shared() bool
	// Hijack gives the bytes that follow a 101. The strings of the response die.
	Hijack() (conn.Conn, error)
}

// connected is the part of a call that concerns its connection.
type connected interface {
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
	Address() string
	LocalAddr() netip.AddrPort
	// Cut ends the call at once; whoever waits for it fails. Anyone may call it, until End.
	Cut()
	// End gives the connection back, for other calls if this one was carried whole and keep is set. The strings of the response
	// die.
	End(keep bool, now time.Time)
}

// pause waits for d, until gone is closed or ctx ends. It is false if that is because ctx has ended.
func pause(ctx context.Context, d time.Duration, gone <-chan struct{}) bool {
	wait := time.NewTimer(d)
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-gone:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}
