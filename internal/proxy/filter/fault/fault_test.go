package fault

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conf"
)

func TestShares(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, share := range []uint32{0, 100_000, 500_000, 1_000_000} {
		f := &conf.Fault{Delay: time.Second, DelayFraction: share, AbortStatus: 500, AbortFraction: share}
		const n = 20000
		delays, aborts := 0.0, 0.0
		for range n {
			in := Decide(f, r.Uint32)
			if in.Delay > 0 {
				delays++
			}
			if in.Abort {
				aborts++
			}
		}
		want := float64(share) / 1e6
		if math.Abs(delays/n-want) > 0.02 || math.Abs(aborts/n-want) > 0.02 {
			t.Errorf("share %v: delays %v, aborts %v", want, delays/n, aborts/n)
		}
	}
}

func TestAbortKinds(t *testing.T) {
	always := func() uint32 { return 0 }
	if in := Decide(&conf.Fault{AbortStatus: 418, AbortFraction: 1e6}, always); in != (Injection{Abort: true, Status: 418}) {
		t.Fatalf("got %+v", in)
	}
	if in := Decide(&conf.Fault{AbortGRPC: 14, AbortFraction: 1e6}, always); in != (Injection{Abort: true, Status: 200, GRPC: 14}) {
		t.Fatalf("got %+v", in)
	}
	if in := Decide(&conf.Fault{Delay: 7 * time.Second, DelayFraction: 1e6}, always); in != (Injection{Delay: 7 * time.Second}) {
		t.Fatalf("got %+v", in)
	}
	if in := Decide(nil, always); in != (Injection{}) {
		t.Fatalf("got %+v", in)
	}
}
