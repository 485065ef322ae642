package conf

// RetryCondition gives a condition by the name that retry_on and x-envoy-retry-on have for it.
// Source: Envoy's documentation of the router filter, x-envoy-retry-on and x-envoy-retry-grpc-on; safe-reset is ours.
func RetryCondition(name string) (on RetryOn, known bool) {
	switch name {
	case "5xx":
		return On5xx, true
	case "gateway-error":
		return OnGatewayError, true
	case "safe-reset":
		return OnSafeReset, true
	case "reset":
		return OnReset, true
	case "reset-before-request":
		return OnResetBeforeRequest, true
	case "connect-failure":
		return OnConnectFailure, true
	case "refused-stream":
		return OnRefusedStream, true
	case "retriable-4xx":
		return OnRetriable4xx, true
	case "retriable-status-codes":
		return OnStatus, true
	case "retriable-headers":
		return OnHeaders, true
	case "envoy-ratelimited":
		return OnRateLimited, true
	case "http3-post-connect-failure":
		return 0, true // nothing is sent upstream by HTTP/3
	case "cancelled":
		return OnGRPCCancelled, true
	case "deadline-exceeded":
		return OnGRPCDeadline, true
	case "internal":
		return OnGRPCInternal, true
	case "resource-exhausted":
		return OnGRPCExhausted, true
	case "unavailable":
		return OnGRPCUnavailable, true
	}
	return 0, false
}
