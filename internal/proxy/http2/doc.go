// Package http2 is the HTTP/2 codec of the proxy, both sides, over conn.Conn (RFC 9113, RFC 7541, RFC 8441). It has the methods and
// contracts of package http1 where they mean the same, so that the exchange is written once.
//
// ServerConn takes requests, each of which becomes a ServerStream on a goroutine of its own; ClientConn opens ClientStreams. Both fill
// and read the heads of package message and move bodies through ReadBody and WriteBody. One exchange is:
//
//	server: Request, ReadBody..., WriteInformational*, WriteResponse, WriteBody..., FinishBody, EndExchange
//	client: Open, WriteRequest, WriteBody..., FinishBody, ReadResponse (again after each 1xx), ReadBody..., EndExchange
//
// Goroutines. ServerConn.Serve and ClientConn.Run read the connection; whoever calls them owns the connection. Of a stream, one
// goroutine may use the reading half while another uses the writing half; streams do not disturb each other. EndExchange and Hijack
// come when both have stopped. Close, Drain, Reset, Gone and the deadlines may be called by anyone while the stream is in use.
//
// Strings of a head are valid until EndExchange of the stream that delivered it. No buffer is held while a connection is idle.
//
// Writing. Frames of all streams gather in one buffer. Whoever flushes lets the goroutines that are about to run add theirs first,
// when there are other streams, and sends it all in one write; a write under way takes along what comes meanwhile. So nothing
// need reach the peer before Flush or FinishBody: whoever stops to wait for something else calls Flush first. A writer waits while
// the peer's windows are shut or the buffer is full, up to its stream's write deadline.
//
// Reading. Bodies wait in pooled blocks up to the stream's window; the peer may send more as ReadBody consumes. What is dropped
// unread is given back to the connection's window at once.
//
// Heads. Names are in lower case on the wire. Content-Length is written from Body, :authority from Authority; Host, Connection,
// Keep-Alive, Proxy-Connection, Transfer-Encoding and Upgrade are never copied. A request for another protocol is one with Upgrade
// set, as in package http1, though on the wire it is an extended CONNECT (RFC 8441): it is read as GET with Upgrade and answered by
// a response with Status 101, which goes out as a 200. A WebSocket handshake over HTTP/2 has no Sec-WebSocket-Key and no
// Sec-WebSocket-Accept: whoever joins it to HTTP/1.1 makes them. After a 101, or a 2xx to CONNECT, Hijack gives the stream as a
// conn.Conn.
//
// Errors. A broken stream is *StreamError, a broken connection *ConnError; both say whether the server surely has not acted on the
// request (Unprocessed). Malformed requests are reset without reaching the handler. A head that is merely too large reaches it with
// Refusal set, to be answered.
package http2
