package probe

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var errDown = errors.New("down")

func timing(initial, period time.Duration, failures, successes int) Timing {
	return Timing{InitialDelay: initial, Period: period, Timeout: time.Second, FailureThreshold: failures, SuccessThreshold: successes}
}

// window gives a check that fails in the given spans since the start.
func window(start time.Time, spans ...time.Duration) Check {
	return func(context.Context) error {
		at := time.Since(start)
		for i := 0; i+1 < len(spans); i += 2 {
			if at >= spans[i] && at < spans[i+1] {
				return errDown
			}
		}
		return nil
	}
}

func TestRun(t *testing.T) {
	s := time.Second
	for _, tt := range []struct {
		name string
		set  func(start time.Time) Set
		want []string
	}{
		{"no probes", func(time.Time) Set { return Set{} }, []string{"0s ready"}},
		{"ready soon after it listens, not a period later", func(start time.Time) Set {
			return Set{Readiness: &Probe{timing(0, 10*s, 3, 1), window(start, 0, 130*time.Millisecond)}}
		}, []string{"0s not ready", "140ms ready"}},
		{"initial delay", func(start time.Time) Set {
			return Set{Readiness: &Probe{timing(5*s, 10*s, 3, 1), window(start)}}
		}, []string{"5s ready"}},
		{"readiness lost after three failures and back after two successes", func(start time.Time) Set {
			return Set{Readiness: &Probe{timing(0, s, 3, 2), window(start, 10*s, 20*s)}}
		}, []string{"1s ready", "12s not ready", "21s ready"}},
		{"two failures are not three", func(start time.Time) Set {
			return Set{Readiness: &Probe{timing(0, s, 3, 1), window(start, 10*s, 12*s, 13*s, 15*s)}}
		}, []string{"0s ready"}},
		{"liveness", func(start time.Time) Set {
			return Set{Liveness: &Probe{timing(0, 10*s, 3, 1), window(start, 15*s, time.Hour)}}
		}, []string{"0s ready", "40s dead"}},
		{"startup holds the others back", func(start time.Time) Set {
			return Set{Startup: &Probe{timing(0, 10*s, 3, 1), window(start, 0, 12*s)}, Liveness: &Probe{timing(0, s, 1, 1), window(start, 0, 12*s)}}
		}, []string{"12s ready"}},
		{"startup never", func(start time.Time) Set {
			return Set{Startup: &Probe{timing(0, 10*s, 3, 1), window(start, 0, time.Hour)}}
		}, []string{"20s dead"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				var got []string
				last := ""
				var mu sync.Mutex
				event := func(what string) {
					mu.Lock()
					defer mu.Unlock()
					if what != last {
						got, last = append(got, fmt.Sprint(time.Since(start), " ", what)), what
					}
				}
				Run(ctx, tt.set(start), Verdict{
					Ready: func(ready bool, why error) {
						if ready {
							event("ready")
						} else if !errors.Is(why, errDown) {
							t.Errorf("not ready because of %v", why)
						} else {
							event("not ready")
						}
					},
					Dead: func(why error) { event("dead") },
				})
				if !slices.Equal(got, tt.want) {
					t.Errorf("got %q, want %q", got, tt.want)
				}
			})
		})
	}
}

func TestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var died time.Duration
		Run(t.Context(), Set{Startup: &Probe{timing(0, 10*time.Second, 1, 1), func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}},
			Verdict{Dead: func(error) { died = time.Since(start) }})
		if died != time.Second {
			t.Errorf("dead after %v", died)
		}
	})
}
