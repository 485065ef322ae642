//go:build race

package http1

// raceEnabled: the race detector makes sync.Pool drop items at random.
const raceEnabled = true
