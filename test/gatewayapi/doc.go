// Package gatewayapi runs the Gateway API's own conformance tests against our compiler and statuses, without a cluster: behind a client
// in memory, each change is compiled and the statuses are written, as a control plane at a cluster does; and against a real API server,
// without nodes, which source/kube reads and writes. It is a module of its own, so that none of the suite's dependencies becomes one of
// Weft's.
//
// Statuses are judged. Where a test goes on to send requests it is skipped from there on; what it had demanded until then held.
package gatewayapi
