package http1

import "time"

// Limits bound what a peer can make a connection hold or do. They are read only once given to a connection.
type Limits struct {
	// HeadBytes bounds a head with its line ends (431), TargetBytes a request line before them (414).
	HeadBytes, TargetBytes int
	// Fields bounds the field lines of a head, and of a trailer section (431).
	Fields int
	// TrailerBytes bounds a trailer section, and what chunk lines may cost beyond a small share of the data they frame.
	TrailerBytes int
	// DrainBytes and DrainTime bound what a server reads of a body nobody wanted, to keep the connection. DrainTime alone bounds it
	// where the connection ends and the peer is to take the response before: one that sends fast has often sent more until it reads.
	DrainBytes int64
	DrainTime  time.Duration
}

// DefaultLimits are the limits of a connection that was given none: Envoy's for a head (60 KiB, 100 fields).
func DefaultLimits() *Limits { return &defaultLimits }

var defaultLimits = Limits{
	HeadBytes: 60 << 10, TargetBytes: 32 << 10, Fields: 100, TrailerBytes: 16 << 10,
	DrainBytes: 256 << 10, DrainTime: 2 * time.Second,
}

// maxInformational bounds the 1xx responses before a final one.
const maxInformational = 100
