// Package logformat reads the format strings of access logs, Envoy's "%OPERATOR(argument):length%", into parts that need no second
// look. Both halves of the mesh use it: the control plane to refuse a format where it is written, the proxy to write lines.
// What an operator's value is, package telemetry knows.
package logformat

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Format is how lines are written: as Text, or as an object where Text is empty.
type Format struct {
	Text   []Part
	Object *Node
	// OmitEmpty leaves out what has no value, instead of writing "-" or null.
	OmitEmpty bool
	// Request and Response are the header fields that the parts name and whose values have to be kept for them, each once.
	Request, Response []string
}

// Part is a literal or an operator.
type Part struct {
	Literal string
	Operator
	// Name is the header field of RequestHeader and ResponseHeader, and the layout of StartTime, "" for the usual one.
	Name string
	// Else is asked where a header field is missing; nil for nothing.
	Else  *Part
	Limit int // bytes of the value; 0 for all
}

// Node is a value of an object: Text, Fields, List or Raw.
type Node struct {
	Key    string // in the object that it is a field of
	Text   []Part // a single number becomes a number
	Fields []Node // in order of keys
	List   []Node
	Raw    string // a number, true, false or null as it is written
	Kind   Kind
}

// Kind says which part of a Node counts.
type Kind uint8

// The kinds of nodes.
const (
	TextNode Kind = iota
	ObjectNode
	ListNode
	RawNode
)

// Operator is a fact about a request or a connection.
type Operator uint8

// The operators; the names in the table below say which they are.
const (
	Literal Operator = iota
	StartTime
	Method
	Path
	Authority
	ForwardedFor
	UserAgent
	RequestID
	RequestHeader
	ResponseHeader
	Protocol
	Code
	Details
	Termination
	Flags
	Received
	Sent
	Duration
	UpstreamTime
	UpstreamHost
	UpstreamCluster
	UpstreamLocal
	TransportFailure
	Local
	LocalHost
	LocalPort
	Remote
	RemoteHost
	RemotePort
	Peer
	ServerName
	Route
	GRPCStatus
	GRPCNumber
	Reason
)

// operators are those without an argument.
var operators = map[string]Operator{
	"START_TIME": StartTime, "PROTOCOL": Protocol, "RESPONSE_CODE": Code, "RESPONSE_CODE_DETAILS": Details,
	"CONNECTION_TERMINATION_DETAILS": Termination, "RESPONSE_FLAGS": Flags, "BYTES_RECEIVED": Received, "BYTES_SENT": Sent,
	"DURATION": Duration, "UPSTREAM_HOST": UpstreamHost, "UPSTREAM_CLUSTER": UpstreamCluster, "UPSTREAM_CLUSTER_RAW": UpstreamCluster,
	"UPSTREAM_LOCAL_ADDRESS": UpstreamLocal, "UPSTREAM_TRANSPORT_FAILURE_REASON": TransportFailure,
	"DOWNSTREAM_LOCAL_ADDRESS": Local, "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT": LocalHost, "DOWNSTREAM_LOCAL_PORT": LocalPort,
	"DOWNSTREAM_REMOTE_ADDRESS": Remote, "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT": RemoteHost, "DOWNSTREAM_REMOTE_PORT": RemotePort,
	"DOWNSTREAM_PEER_URI_SAN": Peer, "REQUESTED_SERVER_NAME": ServerName, "ROUTE_NAME": Route,
	"GRPC_STATUS": GRPCStatus, "GRPC_STATUS_NUMBER": GRPCNumber, "WEFT_REASON": Reason,
}

// requestFacts and responseFacts are header fields that are known without being kept.
var (
	requestFacts = map[string]Operator{":method": Method, ":path": Path, ":authority": Authority, "host": Authority,
		"x-forwarded-for": ForwardedFor, "user-agent": UserAgent, "x-request-id": RequestID}
	responseFacts = map[string]Operator{":status": Code, "x-envoy-upstream-service-time": UpstreamTime}
)

// Number reports whether the operator's value is a number.
func (o Operator) Number() bool {
	switch o {
	case Code, Received, Sent, Duration, UpstreamTime, LocalPort, RemotePort, GRPCNumber:
		return true
	}
	return false
}

// ParseText reads a text format. Lines end where the format says so.
func ParseText(s string) (*Format, error) {
	f := &Format{}
	var err error
	if f.Text, err = f.parse(s); err != nil {
		return nil, err
	}
	if len(f.Text) == 0 {
		return nil, fmt.Errorf("is empty")
	}
	return f, nil
}

// ParseObject reads the format of JSON lines: what encoding/json makes of an object whose strings are formats. Keys are sorted.
func ParseObject(m map[string]any) (*Format, error) {
	f := &Format{}
	n, err := f.node("", m, 0)
	if err != nil {
		return nil, err
	}
	f.Object = &n
	return f, nil
}

// maxDepth bounds the nesting of objects.
const maxDepth = 16

func (f *Format) node(key string, v any, depth int) (n Node, err error) {
	if depth > maxDepth {
		return n, fmt.Errorf("is nested too deeply")
	}
	n.Key = key
	switch v := v.(type) {
	case string:
		n.Text, err = f.parse(v)
	case map[string]any:
		n.Kind = ObjectNode
		for _, k := range sortedKeys(v) {
			c, err := f.node(k, v[k], depth+1)
			if err != nil {
				return n, fmt.Errorf("%s: %w", k, err)
			}
			n.Fields = append(n.Fields, c)
		}
	case []any:
		n.Kind = ListNode
		for i, e := range v {
			c, err := f.node("", e, depth+1)
			if err != nil {
				return n, fmt.Errorf("[%d]: %w", i, err)
			}
			n.List = append(n.List, c)
		}
	case nil:
		n.Kind, n.Raw = RawNode, "null"
	case bool:
		n.Kind, n.Raw = RawNode, strconv.FormatBool(v)
	case float64:
		n.Kind, n.Raw = RawNode, strconv.FormatFloat(v, 'f', -1, 64)
	default:
		err = fmt.Errorf("%T is not supported", v)
	}
	return n, err
}

func sortedKeys(m map[string]any) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// parse splits a format; "%%" is a percent sign.
func (f *Format) parse(s string) (parts []Part, err error) {
	literal := ""
	for s != "" {
		before, rest, found := strings.Cut(s, "%")
		if literal += before; !found {
			break
		}
		if strings.HasPrefix(rest, "%") {
			literal, s = literal+"%", rest[1:]
			continue
		}
		if literal != "" {
			parts, literal = append(parts, Part{Literal: literal}), ""
		}
		var p Part
		if p, s, err = f.operator(rest); err != nil {
			return nil, err
		}
		parts = append(parts, p)
	}
	if literal != "" {
		parts = append(parts, Part{Literal: literal})
	}
	return parts, nil
}

// operator reads what follows the percent sign, up to the one that ends it. An argument may hold percent signs.
func (f *Format) operator(s string) (p Part, rest string, err error) {
	end := strings.IndexAny(s, "%(:")
	if end < 0 {
		return p, "", fmt.Errorf("%%%s: the final %% is missing; write %%%% for a percent sign", s)
	}
	name, argument := s[:end], ""
	called := s[end] == '('
	if rest = s[end:]; called {
		var closed bool
		if argument, rest, closed = strings.Cut(rest[1:], ")"); !closed {
			return p, "", fmt.Errorf("%%%s: the closing parenthesis is missing", name)
		}
	}
	limit, rest, closed := strings.Cut(rest, "%")
	if !closed {
		return p, "", fmt.Errorf("%%%s: the final %% is missing", name)
	}
	if p, err = f.resolve(name, argument, called); err != nil {
		return p, "", fmt.Errorf("%%%s%%: %w", name, err)
	}
	if limit != "" {
		n, err := strconv.ParseUint(strings.TrimPrefix(limit, ":"), 10, 16)
		if err != nil || n == 0 || limit[0] != ':' {
			return p, "", fmt.Errorf("%%%s: %q is no length", name, limit)
		}
		for q := &p; q != nil; q = q.Else {
			q.Limit = int(n)
		}
	}
	return p, rest, nil
}

func (f *Format) resolve(name, argument string, called bool) (Part, error) {
	switch name {
	case "REQ":
		return header(argument, requestFacts, RequestHeader, &f.Request)
	case "RESP":
		return header(argument, responseFacts, ResponseHeader, &f.Response)
	case "START_TIME":
		return Part{Operator: StartTime, Name: argument}, checkLayout(argument)
	}
	o, ok := operators[name]
	switch {
	case !ok:
		return Part{}, fmt.Errorf("this operator is not supported")
	case called:
		return Part{}, fmt.Errorf("takes no argument")
	}
	return Part{Operator: o}, nil
}

// header reads "NAME" or "NAME?OTHER", and notes the names that must be kept.
func header(argument string, facts map[string]Operator, o Operator, keep *[]string) (Part, error) {
	name, other, more := strings.Cut(strings.ToLower(argument), "?")
	if name == "" || strings.ContainsAny(name, " \t?") || strings.LastIndexByte(name, ':') > 0 {
		return Part{}, fmt.Errorf("%q is no header field", argument)
	}
	p := Part{Operator: o, Name: name}
	if fact, ok := facts[name]; ok {
		p = Part{Operator: fact}
	} else if name[0] == ':' {
		return Part{}, fmt.Errorf("%q is not supported", argument)
	} else if !slices.Contains(*keep, name) {
		*keep = append(*keep, name)
	}
	if !more {
		return p, nil
	}
	q, err := header(other, facts, o, keep)
	p.Else = &q
	return p, err
}
