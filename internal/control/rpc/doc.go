// Package rpc serves gRPC over HTTP/2 (RFC 9113) and TLS to very many clients that are quiet most of the time.
//
// A control plane holds a stream for every proxy of the mesh, and hardly any of them has something to do at a given moment. So no
// goroutine belongs to a connection: a connection is woken by its socket, by Stream.Wake or by the clock, and then one of a few
// workers takes a turn with it, in which it reads what there is, lets the handlers of its streams say what they have to, and writes.
// What a quiet connection keeps is its TLS state and a few hundred bytes. docs/adr/0007-streams-without-goroutines.md has the measurements.
//
// Handlers of streams are called by workers and must not block. Unary methods, which are registered as with any gRPC server, run on
// a goroutine of their own and may.
package rpc
