package telemetry

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/weftmesh/weft/internal/logformat"
)

// HeaderValue is a header field that a format names. Name is in lower case.
type HeaderValue struct{ Name, Value string }

// appendAs writes the entry's line in a format of the user's.
func (e *Entry) appendAs(b []byte, f *logformat.Format) []byte {
	if f.Object == nil {
		return e.appendParts(b, f.Text, f.OmitEmpty)
	}
	return append(e.appendNode(b, f.Object, f.OmitEmpty), '\n')
}

// appendParts escapes values, so that nothing a client sends ends a string or a line, and writes literals as they are.
func (e *Entry) appendParts(b []byte, parts []logformat.Part, omit bool) []byte {
	for i := range parts {
		p := &parts[i]
		if p.Operator == logformat.Literal {
			b = append(b, p.Literal...)
			continue
		}
		var ok bool
		if b, ok = e.appendValue(b, p); !ok && !omit {
			b = append(b, '-')
		}
	}
	return b
}

func (e *Entry) appendNode(b []byte, n *logformat.Node, omit bool) []byte {
	switch n.Kind {
	case logformat.RawNode:
		return append(b, n.Raw...)
	case logformat.ObjectNode:
		return append(e.appendFields(append(b, '{'), n.Fields, omit), '}')
	case logformat.ListNode:
		b = append(b, '[')
		for i := range n.List {
			if i > 0 {
				b = append(b, ',')
			}
			b = e.appendNode(b, &n.List[i], omit)
		}
		return append(b, ']')
	}
	if len(n.Text) == 1 && n.Text[0].Operator != logformat.Literal {
		b, _ = e.appendTyped(b, &n.Text[0])
		return b
	}
	b = append(b, '"')
	for i := range n.Text {
		if p := &n.Text[i]; p.Operator == logformat.Literal {
			b = appendInside(b, p.Literal)
		} else {
			b = e.appendParts(b, n.Text[i:i+1], omit)
		}
	}
	return append(b, '"')
}

func (e *Entry) appendFields(b []byte, fields []logformat.Node, omit bool) []byte {
	first := true
	for i := range fields {
		n, before := &fields[i], len(b)
		if !first {
			b = append(b, ',')
		}
		b = append(appendInside(append(b, '"'), n.Key), '"', ':')
		known := true
		if n.Kind == logformat.TextNode && len(n.Text) == 1 && n.Text[0].Operator != logformat.Literal {
			b, known = e.appendTyped(b, &n.Text[0])
		} else {
			b = e.appendNode(b, n, omit)
		}
		if !known && omit {
			b = b[:before]
			continue
		}
		first = false
	}
	return b
}

// appendTyped writes a value as JSON: a number, a string, or null for none.
func (e *Entry) appendTyped(b []byte, p *logformat.Part) ([]byte, bool) {
	before := len(b)
	if !p.Number() {
		b = append(b, '"')
	}
	b, ok := e.appendValue(b, p)
	switch {
	case !ok:
		return append(b[:before], "null"...), false
	case !p.Number():
		b = append(b, '"')
	}
	return b, true
}

// appendValue writes the value of an operator, escaped. It is false, and b unchanged, where there is none.
func (e *Entry) appendValue(b []byte, p *logformat.Part) ([]byte, bool) {
	switch p.Operator {
	case logformat.StartTime:
		if p.Name != "" {
			return logformat.AppendTime(b, e.Start, p.Name), true
		}
		return e.Start.UTC().AppendFormat(b, timeFormat), true
	case logformat.UpstreamLocal:
		return appendAddress(b, e.UpstreamLocal)
	case logformat.Local:
		return appendAddress(b, e.Local)
	case logformat.Remote:
		return appendAddress(b, e.Remote)
	case logformat.LocalHost:
		return appendHost(b, e.Local)
	case logformat.RemoteHost:
		return appendHost(b, e.Remote)
	}
	if p.Number() {
		n, ok := e.number(p.Operator)
		if !ok {
			return b, false
		}
		return strconv.AppendInt(b, n, 10), true
	}
	s := e.text(p)
	if s == "" {
		if p.Else != nil {
			return e.appendValue(b, p.Else)
		}
		return b, false
	}
	if p.Limit > 0 && len(s) > p.Limit {
		s = s[:p.Limit]
	}
	return appendInside(b, s), true
}

func appendAddress(b []byte, a netip.AddrPort) ([]byte, bool) {
	if !a.IsValid() {
		return b, false
	}
	return a.AppendTo(b), true
}

func appendHost(b []byte, a netip.AddrPort) ([]byte, bool) {
	if !a.IsValid() {
		return b, false
	}
	return a.Addr().AppendTo(b), true
}

func (e *Entry) number(o logformat.Operator) (n int64, ok bool) {
	switch o {
	case logformat.Code:
		return int64(e.Code), true
	case logformat.Received:
		return e.Received, true
	case logformat.Sent:
		return e.Sent, true
	case logformat.Duration:
		return e.Duration.Milliseconds(), true
	case logformat.UpstreamTime:
		return e.UpstreamTime.Milliseconds(), e.UpstreamTime >= 0
	case logformat.LocalPort:
		return int64(e.Local.Port()), e.Local.IsValid()
	case logformat.RemotePort:
		return int64(e.Remote.Port()), e.Remote.IsValid()
	case logformat.GRPCNumber:
		n, err := strconv.ParseInt(e.GRPC, 10, 32)
		return n, err == nil
	}
	return 0, false
}

func (e *Entry) text(p *logformat.Part) string {
	switch p.Operator {
	case logformat.Method:
		return e.Method
	case logformat.Path:
		return e.Path
	case logformat.Authority:
		return e.Authority
	case logformat.ForwardedFor:
		return e.ForwardedFor
	case logformat.UserAgent:
		return e.UserAgent
	case logformat.RequestID:
		return e.RequestID
	case logformat.Protocol:
		return e.Protocol
	case logformat.Details:
		return e.Details
	case logformat.Termination:
		return e.Termination
	case logformat.Flags:
		return strings.TrimPrefix(e.Flags, "-")
	case logformat.UpstreamHost:
		return e.UpstreamHost
	case logformat.UpstreamCluster:
		return e.Cluster
	case logformat.TransportFailure:
		return e.TransportFailure
	case logformat.Peer:
		return e.Peer
	case logformat.ServerName:
		return e.ServerName
	case logformat.Route:
		return e.Route
	case logformat.Reason:
		return e.Reason
	case logformat.GRPCStatus:
		return grpcName(e.GRPC)
	case logformat.RequestHeader:
		return lookup(e.Request, p.Name)
	case logformat.ResponseHeader:
		return lookup(e.Response, p.Name)
	}
	return ""
}

func lookup(fields []HeaderValue, name string) string {
	for _, f := range fields {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}

// grpcNames are the codes as Envoy writes them, by number.
var grpcNames = [...]string{"OK", "Canceled", "Unknown", "InvalidArgument", "DeadlineExceeded", "NotFound", "AlreadyExists", "PermissionDenied",
	"ResourceExhausted", "FailedPrecondition", "Aborted", "OutOfRange", "Unimplemented", "Internal", "Unavailable", "DataLoss", "Unauthenticated"}

func grpcName(code string) string {
	if n, err := strconv.Atoi(code); err == nil && n >= 0 && n < len(grpcNames) {
		return grpcNames[n]
	}
	return code
}
