// Package http1 is the HTTP/1.0 and HTTP/1.1 codec of the proxy, both sides, over conn.Conn (RFC 9110, RFC 9112).
//
// ServerConn reads requests and writes responses; ClientConn does the reverse. Both fill and read the heads of package
// message and move bodies through ReadBody and WriteBody; neither knows what the proxy does in between. One exchange is:
//
//	server: WaitRequest, ReadRequest, ReadBody..., WriteInformational*, WriteResponse, WriteBody..., FinishBody, EndExchange
//	client: WriteRequest, WriteBody..., FinishBody, ReadResponse (again after each 1xx), ReadBody..., EndExchange
//
// One goroutine may use the reading half while another uses the writing half. EndExchange, Hijack and Close-like calls come
// when both have stopped.
//
// Buffers. A connection holds none while it waits for a request (WaitRequest) or lies in a pool. The strings of a head point
// into the read buffer: they are valid until EndExchange (Hijack) of the connection that delivered it. Heads are written into
// a buffer too: nothing need reach the peer before Flush or FinishBody, so whoever stops to wait for something else between a
// write and FinishBody calls Flush first. That is how a head and a small body leave in one write.
//
// Framing belongs to the codec. Content-Length, Transfer-Encoding, Connection, Keep-Alive, Proxy-Connection, Upgrade and Host
// are written from the head's typed members (Body, Upgrade, Authority) and the connection's own state, never copied from the
// header list, though Content-Length, Transfer-Encoding and Host keep their place and case there. Fields that Connection lists
// are the caller's to remove: StripHopByHop.
//
// The parser refuses what two implementations could read differently: bare LF, bare CR, NUL and other controls, obs-fold,
// space around a name, repeated or listed Content-Length, Content-Length together with Transfer-Encoding, any transfer coding
// but a single "chunked", Transfer-Encoding in HTTP/1.0, loose chunk sizes, more than one Host, unknown expectations. White space
// before the colon of a response's field is left out. Writers refuse names and values
// that would break the head, so that no rewriting step can inject one.
package http1
