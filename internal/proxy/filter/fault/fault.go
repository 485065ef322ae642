// Package fault decides about injected faults. It only decides: whoever calls waits and answers.
package fault

import (
	"time"

	"github.com/weftmesh/weft/internal/proxy/conf"
)

// Injection is what to do to one request. The zero value is nothing.
type Injection struct {
	Delay time.Duration // before anything is sent upstream
	Abort bool          // answer instead, after the delay
	// Status is the HTTP status of the abort; GRPC, when Status is 200, the gRPC status.
	Status, GRPC int
}

// Decide draws for delay and abort, each by itself as Envoy does. random is uniform over all of uint32. A nil fault injects
// nothing.
func Decide(f *conf.Fault, random func() uint32) Injection {
	var in Injection
	if f == nil {
		return in
	}
	if f.Delay > 0 && hits(f.DelayFraction, random) {
		in.Delay = f.Delay
	}
	if f.AbortFraction > 0 && (f.AbortStatus != 0 || f.AbortGRPC != 0) && hits(f.AbortFraction, random) {
		in.Abort, in.Status = true, f.AbortStatus
		if in.Status == 0 {
			in.Status, in.GRPC = 200, f.AbortGRPC // a gRPC failure is a 200 whose trailers say so
		}
	}
	return in
}

// hits reports true for the share of draws, in millionths.
func hits(share uint32, random func() uint32) bool {
	return share >= 1e6 || share > 0 && uint64(random())*1e6>>32 < uint64(share)
}
