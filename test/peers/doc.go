// Package peers proves that data planes which are not ours work with our control plane, certificate authority and proxies: programs
// with gRPC's own xDS library, and Envoy. Everything is the real thing; pods are addresses of the loopback network.
package peers
