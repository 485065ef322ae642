//go:build race

package http2

// raceEnabled: the race detector makes sync.Pool drop items at random.
const raceEnabled = true
