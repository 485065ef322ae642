package load

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// Held are connections that do nothing.
type Held []net.Conn

// Hold opens connections, one after the other, sends one request on each, and leaves them idle.
func Hold(ctx context.Context, t Target, n int) (Held, error) {
	var held Held
	for i := range n {
		nc, err := t.dial(ctx)
		if err == nil {
			held = append(held, nc)
			_, err = roundTrip(nc, bufio.NewReader(nc), t.request())
		}
		if err == nil {
			err = nc.SetDeadline(time.Time{})
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("connection %d: %w", i, err), held.Close())
		}
	}
	return held, nil
}

// Close closes them all.
func (h Held) Close() error {
	var errs []error
	for _, nc := range h {
		errs = append(errs, nc.Close())
	}
	return errors.Join(errs...)
}

// Handshakes opens connections for d, in a closed loop of workers, with one request on each. Target.TLS must not keep sessions, so
// that each handshake is a full one.
func Handshakes(ctx context.Context, t Target, workers int, d time.Duration) (Result, error) {
	var mu sync.Mutex
	var res Result
	var firstErr error
	start := time.Now()
	var all sync.WaitGroup
	for range workers {
		all.Go(func() { // ends with d
			for time.Since(start) < d && ctx.Err() == nil {
				n, err := t.Get(ctx)
				mu.Lock()
				if err != nil {
					res.Errors++
					firstErr = err
				} else {
					res.Requests++
					res.Bytes += n
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	res.Duration = time.Since(start)
	if res.Requests == 0 {
		return res, fmt.Errorf("no handshake succeeded: %w", firstErr)
	}
	return res, ctx.Err()
}
