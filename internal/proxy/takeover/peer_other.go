//go:build !linux

package takeover

// peerIsOurs relies on the permissions of the socket where the system has no SO_PEERCRED.
func peerIsOurs(int) (bool, error) { return true, nil }
