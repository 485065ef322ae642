// Package peers pins the programs that package conformance holds against the proxy: h2spec, the interop client and server of grpc-go,
// and, in its folders, small clients and servers over libraries of others. It is a module of its own, so that none of their
// dependencies becomes one of Weft's.
package peers
