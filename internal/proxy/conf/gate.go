package conf

// Gate limits the connections that a chain takes. Sources: envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit and
// envoy.extensions.filters.network.local_ratelimit.v3.LocalRateLimit.
type Gate struct {
	// Key is the same for the same filter in successive versions of a listener: its connections stay counted.
	Key string
	// MaxConnections at a time; 0 for no limit.
	MaxConnections uint64
	// Rate is a limit that has a Bucket alone, with a token for each connection; nil for none.
	Rate *LocalLimit
}
