//go:build !unix

package rpc

// descriptors are not counted here.
func descriptors() int64 { return 1 << 40 }
