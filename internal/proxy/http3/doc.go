// Package http3 serves HTTP/3 (RFC 9114) at gateways. QUIC and the framing are quic-go's: clients at the mesh's edge are few
// compared to its sidecars, and a kept library serves them well. What this package adds is the joint: one goroutine per request
// gets a Stream, which has the methods of the other codecs' server sides, so that the exchange does not know the difference.
//
// Differences that the library makes: header fields of different names come sorted by name, since it hands them over as a map, and
// names are sent in lower case as RFC 9114 section 4.2 demands.
package http3
