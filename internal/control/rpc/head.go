package rpc

import (
	"context"
	"encoding/base64"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// head is the head of a request, as it is decoded.
type head struct {
	method, path, scheme, authority string
	contentType, timeout, encoding  string

	metadata metadata.MD
	size     int
	regular  bool   // a field that is no pseudo-header has come
	wrong    string // why the request is malformed
	trailers bool
}

// maxHead bounds the header fields of a request, counted as RFC 9113 does in section 6.5.2.
const maxHead = 16 << 10

// field takes one header field.
func (h *head) field(name, value string) {
	if h.size += len(name) + len(value) + 32; h.size > maxHead || h.wrong != "" {
		return
	}
	if strings.HasPrefix(name, ":") {
		h.pseudo(name, value)
		return
	}
	h.regular = true
	switch {
	case !validName(name) || strings.ContainsAny(value, "\r\n\x00"):
		h.wrong = "a malformed field"
		return
	case name == "connection" || name == "keep-alive" || name == "proxy-connection" || name == "transfer-encoding" || name == "upgrade":
		h.wrong = "the field " + name // RFC 9113, section 8.2.2
		return
	case name == "te" && value != "trailers":
		h.wrong = "the field te"
		return
	}
	switch name {
	case "content-type":
		h.contentType = value
	case "grpc-timeout":
		h.timeout = value
	case "grpc-encoding":
		h.encoding = value
	}
	if strings.HasSuffix(name, "-bin") {
		raw, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(value, "="))
		if err != nil {
			h.wrong = "a field that is not base64"
			return
		}
		value = string(raw)
	}
	if h.metadata == nil {
		h.metadata = metadata.MD{}
	}
	h.metadata[name] = append(h.metadata[name], value)
}

// pseudo takes a pseudo-header field (RFC 9113, section 8.3.1).
func (h *head) pseudo(name, value string) {
	var to *string
	switch name {
	case ":method":
		to = &h.method
	case ":path":
		to = &h.path
	case ":scheme":
		to = &h.scheme
	case ":authority":
		to = &h.authority
	}
	switch {
	case to == nil, h.trailers:
		h.wrong = "the pseudo-header " + strconv.Quote(name)
	case h.regular:
		h.wrong = "a pseudo-header after the others"
	case *to != "":
		h.wrong = name + " twice"
	case value == "":
		h.wrong = name + " is empty"
	default:
		*to = value
	}
}

// validName says whether a field name is a token in small letters (RFC 9110, section 5.6.2, and RFC 9113, section 8.2.1).
func validName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c)) {
			return false
		}
	}
	return s != ""
}

// check says what is wrong with a complete head: malformed means that the stream is reset, a status of HTTP that the request is none
// of gRPC's.
func (h *head) check() (malformed string, httpStatus string) {
	switch {
	case h.wrong != "":
		return h.wrong, ""
	case h.method == "" || h.path == "" || h.scheme == "":
		return "a pseudo-header is missing", ""
	case h.size > maxHead:
		return "", "431"
	case h.method != "POST":
		return "", "405"
	case !grpcContent(h.contentType):
		return "", "415"
	}
	return "", ""
}

// grpcContent reports whether a content type is gRPC's, with messages in protobuf.
func grpcContent(t string) bool {
	rest, ok := strings.CutPrefix(strings.ToLower(t), "application/grpc")
	return ok && (rest == "" || rest == "+proto" || strings.HasPrefix(rest, ";") || strings.HasPrefix(rest, "+proto;"))
}

// timeoutUnits of the field grpc-timeout (gRPC over HTTP/2, "Timeout").
var timeoutUnits = map[byte]time.Duration{'H': time.Hour, 'M': time.Minute, 'S': time.Second, 'm': time.Millisecond, 'u': time.Microsecond, 'n': time.Nanosecond}

// deadline gives the context of a call; without a time-out it ends with the stream alone.
func (h *head) deadline(ctx context.Context) (context.Context, context.CancelFunc, error) {
	if h.timeout == "" {
		ctx, cancel := context.WithCancel(ctx)
		return ctx, cancel, nil
	}
	last := len(h.timeout) - 1
	unit, known := timeoutUnits[h.timeout[last]]
	n, err := strconv.ParseUint(h.timeout[:last], 10, 64)
	if err != nil || !known || last > 8 {
		return nil, nil, status.Errorf(codes.Internal, "the field grpc-timeout is %q", h.timeout)
	}
	const longest = 365 * 24 * time.Hour
	d := longest
	if n <= uint64(longest/unit) {
		d = time.Duration(n) * unit
	}
	ctx, cancel := context.WithTimeout(ctx, d)
	return ctx, cancel, nil
}

// okHead is the block of the head of every response: ":status: 200", which HPACK's static table has, and the type of the content.
var okHead = appendField([]byte{0x88}, "content-type", "application/grpc")

// appendStatus appends the fields that end a response (gRPC over HTTP/2, "Status").
func appendStatus(b []byte, s *status.Status) []byte {
	b = appendField(b, "grpc-status", strconv.Itoa(int(s.Code())))
	if s.Message() != "" {
		b = appendField(b, "grpc-message", escape(s.Message()))
	}
	if len(s.Proto().GetDetails()) > 0 {
		if raw, err := proto.Marshal(s.Proto()); err == nil {
			b = appendField(b, "grpc-status-details-bin", base64.RawStdEncoding.EncodeToString(raw))
		}
	}
	return b
}

// maxStatusMessage keeps the end of a stream within what clients take as a head.
const maxStatusMessage = 4 << 10

// escape writes a message with what is not printable ASCII in percent encoding.
func escape(message string) string {
	const hex = "0123456789ABCDEF"
	message = message[:min(len(message), maxStatusMessage)]
	var b strings.Builder
	for i := range len(message) {
		if c := message[i]; c < ' ' || c > '~' || c == '%' {
			b.Write([]byte{'%', hex[c>>4], hex[c&15]})
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}
