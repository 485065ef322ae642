// Package steady gives times to those who keep them as numbers: their differences are those of the monotonic clock.
package steady

import "time"

// began is what times count from.
var began = time.Now()

// Time gives now with a wall-clock reading that follows the monotonic clock: corrections of the wall clock do not move it.
func Time(now time.Time) time.Time { return began.Add(now.Sub(began)) }
