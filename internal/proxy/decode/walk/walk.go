// Package walk goes through Envoy's messages field by field: it says where it is, refuses what was not asked for, and reads what all
// messages are made of.
package walk

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Walk is one walk through a message. It keeps the path to where it is and the first error; after that it goes on, and what
// it returns is not used.
type Walk struct {
	path  []string
	where string // path of err
	err   error
}

// Path is where the walk is: "filter_chains[0].filters[1]".
func (w *Walk) Path() string { return strings.Join(w.path, ".") }

// Problem gives the first error and where it was found; nil when there is none.
func (w *Walk) Problem() (where string, err error) { return w.where, w.err }

// At decodes inside a field.
func (w *Walk) At(field string, f func()) {
	w.path = append(w.path, field)
	f()
	w.path = w.path[:len(w.path)-1]
}

// Each decodes the elements of a repeated field.
func Each[T any](w *Walk, field string, elements []T, f func(T)) {
	for i, e := range elements {
		w.At(field+"["+strconv.Itoa(i)+"]", func() { f(e) })
	}
}

// Fail refuses the field where the walk is.
func (w *Walk) Fail(format string, args ...any) { w.Failed(fmt.Errorf(format, args...)) }

// Failed refuses it for a reason; only the first one is kept.
func (w *Walk) Failed(err error) {
	if w.err == nil {
		w.err, w.where = err, w.Path()
	}
}

// Only refuses every field of m that is set and not listed. Each function that decodes a message calls it with the fields that it
// reads, and after them those that have no effect here, so that nothing is passed over unknowingly.
func (w *Walk) Only(m proto.Message, fields ...string) {
	if m == nil || !m.ProtoReflect().IsValid() {
		return
	}
	r := m.ProtoReflect()
	if len(r.GetUnknown()) > 0 {
		w.Fail("has fields that this version of the proxy does not know")
	}
	var extra []string
	r.Range(func(fd protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		if !slices.Contains(fields, string(fd.Name())) {
			extra = append(extra, string(fd.Name()))
		}
		return true
	})
	if len(extra) > 0 {
		slices.Sort(extra)
		w.At(extra[0], func() { w.Fail("is not supported") })
	}
}

// Typed unpacks an Any into m, whose type must be the Any's.
func (w *Walk) Typed(a *anypb.Any, m proto.Message) bool {
	if err := a.UnmarshalTo(m); err != nil {
		w.Failed(err)
		return false
	}
	return true
}

const maxDuration = 10 * 365 * 24 * time.Hour

// Duration reads a duration that may be absent: 0.
func (w *Walk) Duration(field string, m *durationpb.Duration) (v time.Duration) {
	if m == nil {
		return 0
	}
	w.At(field, func() {
		if err := m.CheckValid(); err != nil {
			w.Failed(err)
			return
		}
		if v = m.AsDuration(); v < 0 || v > maxDuration {
			w.Fail("%s is out of range", v)
		}
	})
	return v
}

// Port reads a port number; 0 stands for an absent one.
func (w *Walk) Port(field string, v uint32) uint16 {
	if v > math.MaxUint16 {
		w.At(field, func() { w.Fail("%d is not a port", v) })
		return 0
	}
	return uint16(v)
}

// Limit reads a limit of a circuit breaker, where the largest number stands for none.
func Limit(m *wrapperspb.UInt32Value) uint32 {
	if m.GetValue() == math.MaxUint32 {
		return 0
	}
	return m.GetValue()
}

// Million is the whole of a share in millionths.
const Million = 1_000_000

// Fraction reads a share in millionths.
func (w *Walk) Fraction(field string, m *typev3.FractionalPercent) (v uint32) {
	w.At(field, func() {
		w.Only(m, "numerator", "denominator")
		scale := map[typev3.FractionalPercent_DenominatorType]uint64{
			typev3.FractionalPercent_HUNDRED: 10_000, typev3.FractionalPercent_TEN_THOUSAND: 100, typev3.FractionalPercent_MILLION: 1,
		}[m.GetDenominator()]
		n := uint64(m.GetNumerator()) * scale
		if scale == 0 || n > Million {
			w.Fail("is no share between 0 and 1")
			return
		}
		v = uint32(n)
	})
	return v
}

// RuntimeFraction reads a share with a runtime key; there is no runtime here, so the default always holds.
func (w *Walk) RuntimeFraction(field string, m *corev3.RuntimeFractionalPercent) (v uint32) {
	w.At(field, func() {
		w.Only(m, "default_value", "runtime_key")
		v = w.Fraction("default_value", m.GetDefaultValue())
	})
	return v
}

// Percent reads a share between 0 and 1 from a percentage.
func (w *Walk) Percent(field string, m *typev3.Percent) float64 {
	v := m.GetValue()
	if v < 0 || v > 100 || math.IsNaN(v) {
		w.At(field, func() { w.Fail("%v is no percentage", v) })
	}
	return v / 100
}

// CIDR reads a block of addresses.
func (w *Walk) CIDR(m *corev3.CidrRange) netip.Prefix {
	w.Only(m, "address_prefix", "prefix_len")
	a, err := netip.ParseAddr(m.GetAddressPrefix())
	if err != nil {
		w.Failed(err)
		return netip.Prefix{}
	}
	a = a.Unmap()
	p, err := a.Prefix(int(min(m.GetPrefixLen().GetValue(), 1000)))
	if err != nil {
		w.Failed(err)
	}
	return p
}

// CIDRs reads blocks of addresses.
func (w *Walk) CIDRs(field string, ms []*corev3.CidrRange) (ps []netip.Prefix) {
	Each(w, field, ms, func(m *corev3.CidrRange) { ps = append(ps, w.CIDR(m)) })
	return ps
}

// Bytes reads a DataSource that holds its content.
func (w *Walk) Bytes(field string, m *corev3.DataSource) (b []byte) {
	w.At(field, func() {
		w.Only(m, "inline_bytes", "inline_string")
		switch s := m.GetSpecifier().(type) {
		case *corev3.DataSource_InlineBytes:
			b = s.InlineBytes
		case *corev3.DataSource_InlineString:
			b = []byte(s.InlineString)
		}
	})
	return b
}

// Aggregated checks that a resource is to be had from the stream that named it.
func (w *Walk) Aggregated(field string, m *corev3.ConfigSource) {
	w.At(field, func() {
		w.Only(m, "ads", "self", "resource_api_version", "initial_fetch_timeout")
		switch m.GetConfigSourceSpecifier().(type) {
		case *corev3.ConfigSource_Ads, *corev3.ConfigSource_Self:
		default:
			w.Fail("only the aggregated stream (ads) is supported")
		}
		if v := m.GetResourceApiVersion(); v != corev3.ApiVersion_V3 && v != corev3.ApiVersion_AUTO {
			w.Fail("resource_api_version %s is not supported", v)
		}
	})
}

// Socket reads an address with a port.
func (w *Walk) Socket(m *corev3.Address) (address string, port uint16) {
	w.Only(m, "socket_address")
	s := m.GetSocketAddress()
	if s == nil {
		w.Fail("socket_address: is required")
		return "", 0
	}
	w.At("socket_address", func() {
		w.Only(s, "address", "port_value", "ipv4_compat", "protocol")
		port = w.Port("port_value", s.GetPortValue())
		if s.GetAddress() == "" {
			w.Fail("address: is required")
		}
	})
	return s.GetAddress(), port
}

// High reads the priority of a route or of limits.
func (w *Walk) High(p corev3.RoutingPriority) bool {
	if p != corev3.RoutingPriority_DEFAULT && p != corev3.RoutingPriority_HIGH {
		w.At("priority", func() { w.Fail("%s is not supported", p) })
	}
	return p == corev3.RoutingPriority_HIGH
}

// Required reads a duration that must be longer than nothing.
func (w *Walk) Required(field string, m *durationpb.Duration) time.Duration {
	v := w.Duration(field, m)
	if v <= 0 {
		w.At(field, func() { w.Failed(ErrRequired) })
	}
	return v
}

// TypedConfig unpacks a filter's configuration, whatever name the filter was given.
func (w *Walk) TypedConfig(a *anypb.Any, f func()) {
	w.At("typed_config", func() {
		if a == nil {
			w.Failed(ErrRequired)
			return
		}
		f()
	})
}

// Metadata gives the string facts of a metadata namespace. Metadata is open by nature: what is not asked for is not checked.
func Metadata(m *corev3.Metadata, namespace string) func(key string) string {
	fields := m.GetFilterMetadata()[namespace].GetFields()
	return func(key string) string { return fields[key].GetStringValue() }
}

// ErrRequired says that a field is missing.
var ErrRequired = errors.New("is required")
