// Package e2e tests Weft as its users have it: the built programs, real processes, real network namespaces. Each test starts a mesh
// of its own with `weft up` and looks at it through the command line, the API and its gateway.
//
// The tests run as root and as an ordinary user. As root, some of them run a second time as an unprivileged user. Where the kernel
// refuses what a test needs it is skipped with the reason.
package e2e
