package decode

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

// decoder walks one message. It keeps the path to where it is and the first error; after that it goes on, and what it returns is
// not used.
type decoder struct {
	resource string // kind and name, once they are known
	path     []string
	where    string // path of err
	err      error
	quic     bool // the listener is for HTTP/3
}

// at decodes inside a field.
func (d *decoder) at(field string, f func()) {
	d.path = append(d.path, field)
	f()
	d.path = d.path[:len(d.path)-1]
}

// each decodes the elements of a repeated field.
func each[T any](d *decoder, field string, elements []T, f func(T)) {
	for i, e := range elements {
		d.at(field+"["+strconv.Itoa(i)+"]", func() { f(e) })
	}
}

func (d *decoder) fail(format string, args ...any) { d.failed(fmt.Errorf(format, args...)) }

func (d *decoder) failed(err error) {
	if d.err == nil {
		d.err, d.where = err, strings.Join(d.path, ".")
	}
}

// only refuses every field of m that is set and not listed. Each function that decodes a message calls it with the fields that it
// reads, and after them those that have no effect here, so that nothing is passed over unknowingly.
func (d *decoder) only(m proto.Message, fields ...string) {
	if m == nil || !m.ProtoReflect().IsValid() {
		return
	}
	r := m.ProtoReflect()
	if len(r.GetUnknown()) > 0 {
		d.fail("has fields that this version of the proxy does not know")
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
		d.at(extra[0], func() { d.fail("is not supported") })
	}
}

// typed unpacks an Any into m, whose type must be the Any's.
func (d *decoder) typed(a *anypb.Any, m proto.Message) bool {
	if err := a.UnmarshalTo(m); err != nil {
		d.failed(err)
		return false
	}
	return true
}

const maxDuration = 10 * 365 * 24 * time.Hour

// duration reads a duration that may be absent: 0.
func (d *decoder) duration(field string, m *durationpb.Duration) (v time.Duration) {
	if m == nil {
		return 0
	}
	d.at(field, func() {
		if err := m.CheckValid(); err != nil {
			d.failed(err)
			return
		}
		if v = m.AsDuration(); v < 0 || v > maxDuration {
			d.fail("%s is out of range", v)
		}
	})
	return v
}

// port reads a port number; 0 stands for an absent one.
func (d *decoder) port(field string, v uint32) uint16 {
	if v > math.MaxUint16 {
		d.at(field, func() { d.fail("%d is not a port", v) })
		return 0
	}
	return uint16(v)
}

// limit reads a limit of a circuit breaker, where the largest number stands for none.
func limit(m *wrapperspb.UInt32Value) uint32 {
	if m.GetValue() == math.MaxUint32 {
		return 0
	}
	return m.GetValue()
}

const million = 1_000_000

// fraction reads a share in millionths.
func (d *decoder) fraction(field string, m *typev3.FractionalPercent) (v uint32) {
	d.at(field, func() {
		d.only(m, "numerator", "denominator")
		scale := map[typev3.FractionalPercent_DenominatorType]uint64{
			typev3.FractionalPercent_HUNDRED: 10_000, typev3.FractionalPercent_TEN_THOUSAND: 100, typev3.FractionalPercent_MILLION: 1,
		}[m.GetDenominator()]
		n := uint64(m.GetNumerator()) * scale
		if scale == 0 || n > million {
			d.fail("is no share between 0 and 1")
			return
		}
		v = uint32(n)
	})
	return v
}

// runtimeFraction reads a share with a runtime key; there is no runtime here, so the default always holds.
func (d *decoder) runtimeFraction(field string, m *corev3.RuntimeFractionalPercent) (v uint32) {
	d.at(field, func() {
		d.only(m, "default_value", "runtime_key")
		v = d.fraction("default_value", m.GetDefaultValue())
	})
	return v
}

// percent reads a share between 0 and 1 from a percentage.
func (d *decoder) percent(field string, m *typev3.Percent) float64 {
	v := m.GetValue()
	if v < 0 || v > 100 || math.IsNaN(v) {
		d.at(field, func() { d.fail("%v is no percentage", v) })
	}
	return v / 100
}

func (d *decoder) cidr(m *corev3.CidrRange) netip.Prefix {
	d.only(m, "address_prefix", "prefix_len")
	a, err := netip.ParseAddr(m.GetAddressPrefix())
	if err != nil {
		d.failed(err)
		return netip.Prefix{}
	}
	a = a.Unmap()
	p, err := a.Prefix(int(min(m.GetPrefixLen().GetValue(), 1000)))
	if err != nil {
		d.failed(err)
	}
	return p
}

func (d *decoder) cidrs(field string, ms []*corev3.CidrRange) (ps []netip.Prefix) {
	each(d, field, ms, func(m *corev3.CidrRange) { ps = append(ps, d.cidr(m)) })
	return ps
}

// bytes reads a DataSource that holds its content.
func (d *decoder) bytes(field string, m *corev3.DataSource) (b []byte) {
	d.at(field, func() {
		d.only(m, "inline_bytes", "inline_string")
		switch s := m.GetSpecifier().(type) {
		case *corev3.DataSource_InlineBytes:
			b = s.InlineBytes
		case *corev3.DataSource_InlineString:
			b = []byte(s.InlineString)
		}
	})
	return b
}

// aggregated checks that a resource is to be had from the stream that named it.
func (d *decoder) aggregated(field string, m *corev3.ConfigSource) {
	d.at(field, func() {
		d.only(m, "ads", "self", "resource_api_version", "initial_fetch_timeout")
		switch m.GetConfigSourceSpecifier().(type) {
		case *corev3.ConfigSource_Ads, *corev3.ConfigSource_Self:
		default:
			d.fail("only the aggregated stream (ads) is supported")
		}
		if v := m.GetResourceApiVersion(); v != corev3.ApiVersion_V3 && v != corev3.ApiVersion_AUTO {
			d.fail("resource_api_version %s is not supported", v)
		}
	})
}

// socket reads an address with a port.
func (d *decoder) socket(m *corev3.Address) (address string, port uint16) {
	d.only(m, "socket_address")
	s := m.GetSocketAddress()
	if s == nil {
		d.fail("socket_address: is required")
		return "", 0
	}
	d.at("socket_address", func() {
		d.only(s, "address", "port_value", "ipv4_compat", "protocol")
		port = d.port("port_value", s.GetPortValue())
		if s.GetAddress() == "" {
			d.fail("address: is required")
		}
	})
	return s.GetAddress(), port
}

// metadata gives the string facts of a metadata namespace. Metadata is open by nature: what is not asked for is not checked.
func metadata(m *corev3.Metadata, namespace string) func(key string) string {
	fields := m.GetFilterMetadata()[namespace].GetFields()
	return func(key string) string { return fields[key].GetStringValue() }
}

var errRequired = errors.New("is required")
