//go:build !linux

package conn_test

func polled() []transport { return nil }
