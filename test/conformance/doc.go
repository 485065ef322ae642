// Package conformance holds the proxy against the protocols it speaks: what reaches a backend, byte for byte, of requests and
// responses that are right, wrong, or made to be understood differently by two parsers; and the suites, clients and servers of
// others, which package peers pins.
package conformance
