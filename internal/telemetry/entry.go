package telemetry

import (
	"net/netip"
	"strconv"
	"time"
	"unicode/utf8"
)

// Entry is what the access log says of one request or connection. Empty strings are logged as "-".
type Entry struct {
	Start                              time.Time
	Method, Path, Protocol             string // empty for TCP
	Code                               int    // 0 for none
	Flags                              string // response flags, "-" for none
	Details                            string // response code details ("via_upstream")
	Termination                        string // connection termination details ("rbac_access_denied_matched_policy[...]")
	TransportFailure                   string // why TLS to the upstream failed
	Received, Sent                     int64  // body bytes from and to the client
	Duration                           time.Duration
	UpstreamTime                       time.Duration // until the response's head; negative when there was none
	ForwardedFor, UserAgent, RequestID string
	Authority, UpstreamHost, Cluster   string
	UpstreamLocal, Local, Remote       netip.AddrPort
	ServerName, Route                  string
	// Reason says in plain words what failed; empty when nothing did.
	Reason string
	// Peer is who the client proved to be.
	Peer string
	GRPC string // status, as a number; empty for none
	// Request and Response are header fields that a configured format names.
	Request, Response []HeaderValue
}

// appendText is Istio's default text format (istio.io/latest/docs/tasks/observability/logs/access-log), followed by the reason
// in quotes where something failed.
func (e *Entry) appendText(b []byte) []byte {
	b = append(b, '[')
	b = e.Start.UTC().AppendFormat(b, timeFormat)
	b = append(b, `] "`...)
	b = quoted(b, e.Method)
	b = append(b, ' ')
	b = quoted(b, e.Path)
	b = append(b, ' ')
	b = quoted(b, e.Protocol)
	b = append(b, `" `...)
	b = append(strconv.AppendInt(b, int64(e.Code), 10), ' ')
	b = append(bare(b, e.Flags), ' ')
	b = append(bare(b, e.Details), ' ')
	b = append(bare(b, e.Termination), ` "`...)
	b = append(quoted(b, e.TransportFailure), `" `...)
	b = append(strconv.AppendInt(b, e.Received, 10), ' ')
	b = append(strconv.AppendInt(b, e.Sent, 10), ' ')
	b = append(strconv.AppendInt(b, e.Duration.Milliseconds(), 10), ' ')
	b = append(e.appendUpstreamTime(b), ` "`...)
	for _, s := range [...]string{e.ForwardedFor, e.UserAgent, e.RequestID, e.Authority} {
		b = append(quoted(b, s), `" "`...)
	}
	b = append(quoted(b, e.UpstreamHost), `" `...)
	b = append(bare(b, e.Cluster), ' ')
	b = append(address(b, e.UpstreamLocal), ' ')
	b = append(address(b, e.Local), ' ')
	b = append(address(b, e.Remote), ' ')
	b = append(bare(b, e.ServerName), ' ')
	b = bare(b, e.Route)
	if e.Reason != "" {
		b = append(quoted(append(b, ` "`...), e.Reason), '"')
	}
	return append(b, '\n')
}

const timeFormat = "2006-01-02T15:04:05.000Z"

func (e *Entry) appendUpstreamTime(b []byte) []byte {
	if e.UpstreamTime < 0 {
		return append(b, '-')
	}
	return strconv.AppendInt(b, e.UpstreamTime.Milliseconds(), 10)
}

func address(b []byte, a netip.AddrPort) []byte {
	if !a.IsValid() {
		return append(b, '-')
	}
	return a.AppendTo(b)
}

// bare writes a token; spaces, which would shift the columns, become underscores as in Envoy's details.
func bare(b []byte, s string) []byte {
	if s == "" {
		return append(b, '-')
	}
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c == 0x7f {
			b = append(b, '_')
		} else {
			b = append(b, c)
		}
	}
	return b
}

// quoted writes the inside of a quoted string: nothing a client sends can end the string or the line.
func quoted(b []byte, s string) []byte {
	if s == "" {
		return append(b, '-')
	}
	return appendInside(b, s)
}

const hex = "0123456789abcdef"

// appendInside escapes as JSON does, so that both formats share it. What is not UTF-8 becomes the replacement character.
func appendInside(b []byte, s string) []byte {
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < ' ' || c == 0x7f:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		case c < utf8.RuneSelf:
			b = append(b, c)
		default:
			r, n := utf8.DecodeRuneInString(s[i:])
			b = utf8.AppendRune(b, r)
			i += n
			continue
		}
		i++
	}
	return b
}

// appendJSON uses the names of Istio's JSON encoding.
func (e *Entry) appendJSON(b []byte) []byte {
	b = append(b, `{"start_time":"`...)
	b = append(e.Start.UTC().AppendFormat(b, timeFormat), '"')
	for _, f := range [...]struct{ name, value string }{
		{"method", e.Method}, {"path", e.Path}, {"protocol", e.Protocol}, {"response_flags", e.Flags},
		{"response_code_details", e.Details}, {"connection_termination_details", e.Termination},
		{"upstream_transport_failure_reason", e.TransportFailure}, {"x_forwarded_for", e.ForwardedFor},
		{"user_agent", e.UserAgent}, {"request_id", e.RequestID}, {"authority", e.Authority},
		{"upstream_host", e.UpstreamHost}, {"upstream_cluster", e.Cluster}, {"requested_server_name", e.ServerName},
		{"route_name", e.Route}, {"peer", e.Peer}, {"reason", e.Reason},
	} {
		b = append(append(append(b, `,"`...), f.name...), `":`...)
		if f.value == "" {
			b = append(b, "null"...)
		} else {
			b = append(appendInside(append(b, '"'), f.value), '"')
		}
	}
	for _, f := range [...]struct {
		name  string
		value netip.AddrPort
	}{{"upstream_local_address", e.UpstreamLocal}, {"downstream_local_address", e.Local}, {"downstream_remote_address", e.Remote}} {
		b = append(append(append(b, `,"`...), f.name...), `":"`...)
		b = append(address(b, f.value), '"')
	}
	for _, f := range [...]struct {
		name  string
		value int64
	}{{"response_code", int64(e.Code)}, {"bytes_received", e.Received}, {"bytes_sent", e.Sent}, {"duration", e.Duration.Milliseconds()}} {
		b = append(append(append(b, `,"`...), f.name...), `":`...)
		b = strconv.AppendInt(b, f.value, 10)
	}
	if e.UpstreamTime >= 0 {
		b = strconv.AppendInt(append(b, `,"upstream_service_time":`...), e.UpstreamTime.Milliseconds(), 10)
	}
	return append(b, '}', '\n')
}
