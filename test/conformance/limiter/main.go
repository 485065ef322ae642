// Command limiter runs Envoy's own rate-limit service (github.com/envoyproxy/ratelimit) over a Redis of its own, for package
// conformance. It is a module of its own, so that none of the service's dependencies becomes one of Weft's.
//
// It serves gRPC at the unix socket "socket" of the directory that is its argument, by the configuration in limits/config/*.yaml there,
// prints a line when it does, and ends with its standard input.
package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/envoyproxy/ratelimit/src/service_cmd/runner"
	"github.com/envoyproxy/ratelimit/src/settings"
)

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: limiter DIRECTORY")
	}
	redis, err := miniredis.Run()
	if err != nil {
		log.Fatalf("redis: %v", err)
	}
	s := settings.NewSettings()
	s.RedisSocketType, s.RedisUrl = "tcp", redis.Addr()
	s.Host, s.Port, s.DebugHost, s.DebugPort = "127.0.0.1", 0, "127.0.0.1", 0
	s.GrpcUds = filepath.Join(os.Args[1], "socket")
	s.RuntimePath, s.RuntimeSubdirectory, s.RuntimeWatchRoot = os.Args[1], "limits", false
	s.DisableStats, s.UseStatsd = true, false
	r := runner.NewRunner(s)
	go r.Run() // ends with the process
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	for range time.Tick(10 * time.Millisecond) {
		if c, err := net.Dial("unix", s.GrpcUds); err == nil {
			c.Close()
			break
		}
	}
	fmt.Println("ready")
	select {}
}
