// Package fault breaks what proxies talk to, and proxies' own resources, in every way that networks and machines do: after each
// fault nothing has leaked, no answer was wrong, and no request was lost that could be saved.
package fault
