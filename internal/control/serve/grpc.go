package serve

import "google.golang.org/grpc"

// ServerOptions are how a gRPC server of thousands of idle streams keeps little for each: buffers are small, or lent while something is
// being written.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{grpc.ReadBufferSize(4 << 10), grpc.WriteBufferSize(16 << 10), grpc.SharedWriteBuffer(true), grpc.MaxHeaderListSize(16 << 10)}
}
