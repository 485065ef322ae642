package conf

// CORS is what a route lets pages of other origins do. Source: envoy.extensions.filters.http.cors.v3.CorsPolicy; what the fields
// do: https://fetch.spec.whatwg.org/#http-cors-protocol.
type CORS struct {
	// Origins that are allowed; one that matches "*" allows all.
	Origins []StringMatch
	// The values of Access-Control-Allow-Methods, -Allow-Headers, -Expose-Headers and -Max-Age; empty ones are not written.
	Methods, Headers, Expose, MaxAge string
	Credentials                      bool
	// PrivateNetwork answers questions for access to private networks with yes.
	PrivateNetwork bool
	// AnswerUnmatched answers preflights of other origins without any permission; otherwise the upstream answers them.
	AnswerUnmatched bool
	// Fraction of requests that it holds for, in millionths.
	Fraction uint32
}
