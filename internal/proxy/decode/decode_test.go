package decode_test

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	dnsv3 "github.com/envoyproxy/go-control-plane/envoy/data/dns/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/weftmesh/weft/internal/proxy/decode"
)

var update = flag.Bool("update", false, "write what is decoded into the golden files")

// read gives a message of testdata; its first line says which.
func read(t testing.TB, file string) proto.Message {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(raw), "\n")
	m := map[string]proto.Message{
		"listener": &listenerv3.Listener{}, "routes": &routev3.RouteConfiguration{}, "cluster": &clusterv3.Cluster{},
		"endpoints": &endpointv3.ClusterLoadAssignment{}, "dns": &dnsv3.DnsTable{},
	}[strings.TrimPrefix(line, "# type: ")]
	if err := prototext.Unmarshal(raw, m); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return m
}

func decodeMessage(m proto.Message) (any, error) {
	a, err := anypb.New(m)
	if err != nil {
		return nil, err
	}
	return decode.Resource(a)
}

func messages(t testing.TB) []string {
	files, err := filepath.Glob("testdata/*.textproto")
	if err != nil || len(files) == 0 {
		t.Fatalf("no messages: %v", err)
	}
	return files
}

// TestGolden decodes the messages of testdata, which use everything that is supported, and compares the result as JSON.
func TestGolden(t *testing.T) {
	for _, file := range messages(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			v, err := decodeMessage(read(t, file))
			if err != nil {
				t.Fatal(err)
			}
			got, err := json.MarshalIndent(v, "", " ")
			if err != nil {
				t.Fatal(err)
			}
			golden := strings.TrimSuffix(file, ".textproto") + ".json"
			if *update {
				if err := os.WriteFile(golden, append(got, '\n'), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if string(got)+"\n" != string(want) {
				t.Errorf("%s differs (run with -update to accept):\n%s", golden, got)
			}
		})
	}
}

// TestNothingIsIgnored sets, one after the other, every field that is not set in the messages of testdata, at every depth. Either
// the message is refused, or the result changes, or the field is listed here as without effect.
func TestNothingIsIgnored(t *testing.T) {
	ignored := map[string]bool{}
	for _, file := range messages(t) {
		m := read(t, file)
		base, err := decodeMessage(m)
		if err != nil {
			t.Fatal(err)
		}
		mutate(m.ProtoReflect(), func(field string) {
			if v, err := decodeMessage(m); err == nil && reflect.DeepEqual(v, base) {
				ignored[field] = true
			}
		})
	}
	var got []string
	for f := range ignored {
		got = append(got, f)
	}
	slices.Sort(got)
	raw, err := os.ReadFile("testdata/without-effect.txt")
	if err != nil && !*update {
		t.Fatal(err)
	}
	text := strings.Join(got, "\n") + "\n"
	if *update {
		if err := os.WriteFile("testdata/without-effect.txt", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if text != string(raw) {
		t.Errorf("fields without effect (each needs a reason in its table, then run with -update):\n%s", text)
	}
}

// mutate sets each unset field of m and of the messages in it, calls check with the field's name, and takes it back.
func mutate(m protoreflect.Message, check func(field string)) {
	if a, ok := m.Interface().(*anypb.Any); ok {
		inner, err := a.UnmarshalNew()
		if err != nil {
			return
		}
		saved := a.Value
		mutate(inner.ProtoReflect(), func(field string) {
			a.Value, _ = proto.Marshal(inner)
			check(field)
			a.Value = saved
		})
		return
	}
	if open(m) {
		return
	}
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		if m.Has(fd) {
			descend(m.Get(fd), fd, check)
			continue
		}
		if o := fd.ContainingOneof(); o != nil && m.WhichOneof(o) != nil {
			continue // setting it would take another back, which is another change
		}
		m.Set(fd, sample(m, fd))
		check(string(m.Descriptor().Name()) + "." + string(fd.Name()))
		m.Clear(fd)
	}
}

// open reports messages whose content is not a schema's: facts and plain values.
func open(m protoreflect.Message) bool {
	full := m.Descriptor().FullName()
	return full == "envoy.config.core.v3.Metadata" || strings.HasPrefix(string(full), "google.protobuf.")
}

func descend(v protoreflect.Value, fd protoreflect.FieldDescriptor, check func(string)) {
	switch {
	case fd.IsMap():
		if fd.MapValue().Message() != nil {
			v.Map().Range(func(_ protoreflect.MapKey, e protoreflect.Value) bool {
				mutate(e.Message(), check)
				return true
			})
		}
	case fd.Message() == nil:
	case fd.IsList():
		for i := range v.List().Len() {
			mutate(v.List().Get(i).Message(), check)
		}
	default:
		mutate(v.Message(), check)
	}
}

// sample gives a value that differs from the default.
func sample(m protoreflect.Message, fd protoreflect.FieldDescriptor) protoreflect.Value {
	switch {
	case fd.IsList():
		l := m.NewField(fd).List()
		l.Append(scalar(fd, func() protoreflect.Value { return l.NewElement() }))
		return protoreflect.ValueOfList(l)
	case fd.IsMap():
		mp := m.NewField(fd).Map()
		mp.Set(protoreflect.ValueOfString("key").MapKey(), scalar(fd.MapValue(), func() protoreflect.Value { return mp.NewValue() }))
		return protoreflect.ValueOfMap(mp)
	}
	return scalar(fd, func() protoreflect.Value { return m.NewField(fd) })
}

func scalar(fd protoreflect.FieldDescriptor, empty func() protoreflect.Value) protoreflect.Value {
	switch fd.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(fd.Enum().Values().Get(fd.Enum().Values().Len() - 1).Number())
	case protoreflect.StringKind:
		return protoreflect.ValueOfString("sample")
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte("sample"))
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(2)
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(2)
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(2)
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(2)
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(2)
	case protoreflect.FloatKind:
		return protoreflect.ValueOfFloat32(2)
	}
	v := empty()
	switch w := v.Message().Interface().(type) {
	case *durationpb.Duration:
		w.Seconds = 77
	case *structpb.Struct:
		w.Fields = map[string]*structpb.Value{"key": structpb.NewStringValue("v")}
	default:
		if f := v.Message().Descriptor().Fields().ByName("value"); f != nil && strings.HasPrefix(string(v.Message().Descriptor().FullName()), "google.protobuf.") {
			v.Message().Set(f, scalar(f, nil))
		}
	}
	return v
}

func TestRefusals(t *testing.T) {
	tests := []struct{ file, old, new, want string }{
		{"routes", `prefix: "/" headers`, `prefix: "/" dynamic_metadata { filter: "x" } headers`, "virtual_hosts[0].routes[0].match.dynamic_metadata: is not supported"},
		{"opens", `"127.0.0.1:3306"`, `"localhost:3306"`, `metadata: openOutbound: "localhost:3306" is not an address with its port`},
		{"opens", `"10.77.0.1:9080"`, `"10.77.0.1:0"`, `metadata: openInbound: "10.77.0.1:0" is not an address with its port`},
		{"accesslog", `"/var/log/tcp"`, `""`, "filters[0].typed_config.access_log[0].typed_config.path: is required"},
		{"accesslog", `%RESP(X-APP)%`, `%UNKNOWN%`, "access_log[0].typed_config.log_format.text_format_source: %UNKNOWN%: this operator is not supported"},
		{"accesslog", `%RESPONSE_CODE%`, `%RESPONSE_CODE`, "access_log[1].typed_config.log_format.json_format: code: %RESPONSE_CODE: the final % is missing"},
		{"accesslog", `filters { response_flag_filter {} }`, `filters { runtime_filter {} }`, "filter.or_filter.filters[3].runtime_filter: is not supported"},
		{"accesslog", `"UH"`, `"NOFLAG"`, `response_flag_filter.flags[0]: "NOFLAG" is no response flag`},
		{"accesslog", `access_loggers.stream.v3.StdoutAccessLog] {}`, `filters.http.router.v3.Router] {}`, `access log "out" of type`},
		{"routes", `routes { match { prefix: "/h" }`, `routes { match { connect_matcher {} }`, "match.connect_matcher: is not supported"},
		{"routes", `"/users/{id}/{rest=**}"`, `"/users/{id}/{id}"`, "{id} occurs twice"},
		{"routes", `"/users/{id}/{rest=**}"`, `"/users/{id"`, "a brace is not closed"},
		{"routes", `"/{rest}/of/{id}"`, `"/{rest}/of/{other}"`, "{other} is no variable"},
		{"routes", `total_weight { value: 3 }`, `total_weight { value: 4 }`, "total_weight: is 4, and the weights add up to 3"},
		{"routes", `priority: HIGH`, `priority: 2`, "priority: 2 is not supported"},
		{"cluster", `priority: HIGH max_connections`, `max_connections`, "thresholds[1].priority: DEFAULT occurs twice"},
		{"routes", `match { prefix: "/h" } route {`, `match { prefix: "/h" } route { internal_redirect_policy {}`, "internal_redirect_policy: is not supported"},
		{"routes", `match { prefix: "/h" } route {`, `match { prefix: "/h" } route { hedge_policy { initial_requests { value: 2 } }`, "hedge_policy.initial_requests: 2: only 1 is supported"},
		{"routes", `reset_headers { name: "Retry-After" } reset_headers { name: "X-Reset" format: UNIX_TIMESTAMP }`, ``, "reset_headers: may not be empty"},
		{"routes", `omit_canary_hosts`, `omit_host_metadata`, `"envoy.retry_host_predicates.omit_host_metadata" is not supported`},
		{"routes", `path_rewrite: "/whole"`, `path_rewrite: "/%REQ(x-a)%"`, "path_rewrite: \"/%REQ(x-a)%\" has an operator"},
		{"routes", `regex: "/v[0-9]+"`, `regex: "/v[0-9"`, "routes[3].match.safe_regex: error parsing regexp"},
		{"routes", `regex: "GET|POST"`, `regex: "((a{100}){100}){100}"`, "headers[2].safe_regex_match"},
		{"routes", `substitution: "/version/\\1"`, `substitution: "/version/\\2"`, "refers to a group"},
		{"routes", `"www.*", "*"`, `"www.*", "*", "REVIEWS"`, "occurs twice"},
		{"routes", `"www.*", "*"`, `"w*w", "*"`, "is not a domain"},
		{"routes", `100%%`, `100%`, "single percent sign"},
		{"cluster_dns", `type: STRICT_DNS`, `type: STRICT_DNS eds_cluster_config {}`, "eds_cluster_config: does not go with type STRICT_DNS"},
		{"cluster_dns", `system_root_certs {}`, `system_root_certs {} ca_certificate_provider_instance { instance_name: "ROOTCA" }`, "one kind of roots"},
		{"cluster_balance", `choice_count { value: 3 }`, `choice_count { value: 1 }`, "choice_count: 1 is not between 2 and 100"},
		{"cluster_balance", `default_value: 1.5`, `default_value: -1`, "aggression: -1 is not positive"},
		{"cluster_balance", `interval { seconds: 5 }`, ``, "health_checks[0].interval: is required"},
		{"cluster_balance", `path: "/well"`, `path: "well"`, "does not begin with a slash"},
		{"cluster_balance", `start: 500 end: 504`, `start: 504 end: 500`, "is no range of statuses"},
		{"cluster_balance", `failure_percentage_threshold { value: 60 }`, `failure_percentage_threshold { value: 101 }`, "101 is no percentage"},
		{"cluster", `http2_protocol_options {}`, `http2_protocol_options { max_concurrent_streams { value: 0 } }`, "max_concurrent_streams: 0 is not between 1 and 2147483647"},
		{"routes", `%REQ(:path)%`, `%VIRTUAL_CLUSTER_NAME%`, "operator %VIRTUAL_CLUSTER_NAME% is not supported"},
		{"routes", `%REQ(:path)%`, "a\\r\\nb: c", "line break"},
		{"routes", `seconds: 3`, `seconds: -3`, "timeout: -3s is out of range"},
		{"routes", `retry_on: "connect-failure`, `retry_on: "sometimes`, `condition "sometimes" is not supported`},
		{"routes", `weight { value: 90 }`, `weight { value: 4294967295 }`, "weights add up to"},
		{"routes", `numerator: 25`, `numerator: 250`, "is no share"},
		{"routes", `http_status: 500`, `http_status: 50`, "is not a final status"},
		{"routes", `seconds: 7 } percentage { numerator: 100 } } abort { http_status: 500 percentage { numerator: 5000 denominator: TEN_THOUSAND } } } } }`,
			`seconds: 7 } } } } } typed_per_filter_config { key: "odd" value { [type.googleapis.com/envoy.data.dns.v3.DnsTable] {} } }`,
			`typed_per_filter_config[odd]: filter of type "type.googleapis.com/envoy.data.dns.v3.DnsTable" is not supported`},
		{"routes", `max_age: "60"`, `max_age: "6\n0"`, "cors].max_age: contains a line break or NUL"},
		{"routes", `status: 503`, `status: 99`, "is not a final status"},
		{"routes", `path_rewrite: "/whole"`, `path_rewrite: "/whole\nx"`, "route.path_rewrite: contains a line break or NUL"},
		{"routes", `path_rewrite: "/whole"`, `prefix_rewrite: "/whole\000"`, "route.prefix_rewrite: contains a line break or NUL"},
		{"routes", `path_rewrite: "/whole"`, `host_rewrite_literal: "a\r\nb: c"`, "route.host_rewrite_literal: contains a line break or NUL"},
		{"routes", `path_rewrite: "/whole"`, `path_rewrite: "/whole" prefix_rewrite: "/"`, "exclude each other"},
		{"inbound", `instance_name: "ROOTCA"`, `instance_name: "OTHER"`, `"OTHER" is not known here`},
		{"inbound", `destination_port: 22`, `destination_port_range { start: 1 end: 2 }`, "destination_port_range: is not supported"},
		{"inbound", `name: "router" typed_config { [type.googleapis.com/envoy.extensions.filters.http.router.v3.Router] {} }`,
			`name: "odd" typed_config { [type.googleapis.com/envoy.data.dns.v3.DnsTable] {} }`, `filter "odd" of type "type.googleapis.com/envoy.data.dns.v3.DnsTable" is not supported`},
		{"inbound", `max_connections { value: 40 }`, `max_connections { value: 40 } delay { seconds: 1 }`, "filters[1].typed_config.delay: is not supported"},
		{"inbound", `max_connections { value: 40 }`, ``, "max_connections: must be more than 0"},
		{"inbound", `tokens_per_fill { value: 3 } fill_interval { seconds: 2 }`, ``, "token_bucket.fill_interval: must be more than 0"},
		{"inbound", `name: "virtualInbound"
traffic_direction: INBOUND`, `name: "outside"`, "filter_chains[0]: limits of connections are for inbound"},
		{"inbound", `path_template: "/a/{x}/**"`, `path_template: "/a/b*c"`, "segment"},
		{"inbound", `transport_protocol: "tls"`, `transport_protocol: "quic"`, `"quic" is not supported`},
		{"gateway", `cipher_suites: ["ECDHE-ECDSA-AES128-GCM-SHA256",`, `cipher_suites: ["RC4-SHA",`, `"RC4-SHA" is not supported`},
		{"gateway", `TLSv1_2`, `TLSv1_1`, "older than 1.2"},
		{"gateway", `verify_certificate_hash: "e3`, `verify_certificate_hash: "`, "verify_certificate_hash[0]: is no SHA-256"},
		{"gateway", `verify_certificate_spki: "47DE`, `verify_certificate_spki: "`, "verify_certificate_spki[0]: is no SHA-256"},
		{"cluster", `trusted_ca {`, `verify_certificate_spki: "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=" trusted_ca {`, "not supported towards upstreams"},
		{"gateway", `private_key { inline_string: "`, `private_key { inline_string: "x`, "tls:"},
		{"gateway", `0.0.0.0" port`, `all" port`, "address: "},
		{"quic", `udp_listener_config: {`, `udp_listener_config: { udp_packet_packet_writer_config { name: "gso" }`, "udp_packet_packet_writer_config: is not supported"},
		{"quic", `  quic_options: {}`, ``, "codec_type: HTTP3 is not supported"},
		{"udp", `name: "envoy.filters.udp_listener.udp_proxy"`, `name: "x" filter_disabled: {}`, "filter_disabled"},
		{"udp", `cluster: "udp|53||dns.default.svc.cluster.local"`, ``, "cluster: is required"},
		{"udp", `protocol: UDP`, `protocol: TCP`, "protocol UDP is required"},
		{"udp", `source_ip: true`, `key: "x"`, "key"},
		{"udp", `weight: 9`, `weight: 4294967295`, "weights add up to"},
		{"udp", `traffic_direction: OUTBOUND`, `traffic_direction: OUTBOUND filter_chains: {}`, "end in neither"},
		{"udp", `traffic_direction: OUTBOUND`, `traffic_direction: INBOUND`, "is for gateways only"},
		{"udp", `traffic_direction: OUTBOUND`, `traffic_direction: OUTBOUND listener_filters: { name: "envoy.filters.listener.tls_inspector" }`, "through udp_proxy alone"},
		{"udp", `weft.dev/udp-split`, `weft.dev/udp-policy-1`, "typed_filter_metadata"},
		{"quic", `[type.googleapis.com/envoy.extensions.transport_sockets.quic.v3.QuicDownstreamTransport]: {`,
			`[type.googleapis.com/envoy.extensions.transport_sockets.quic.v3.QuicDownstreamTransport]: { enable_early_data { value: true }`, "early data can be replayed"},
		{"gateway", `socket_address { address`, `socket_address { protocol: UDP address`, "udp_listener_config: is required"},
		{"outbound", `config_source { ads {}`, `config_source { path: "/etc"`, "config_source.path: is not supported"},
		{"cluster", `lb_policy: LEAST_REQUEST`, `lb_policy: CLUSTER_PROVIDED`, "CLUSTER_PROVIDED is not supported"},
		{"cluster", `key: "tlsMode" value { string_value: "istio" } }`, `key: "zone" value { string_value: "istio" } }`, "only tlsMode"},
		{"cluster", `validation_context { trust_chain_verification: ACCEPT_UNTRUSTED }`, `alpn_protocols: "x"`, "says nothing about the server's certificate"},
		{"endpoints", `address: "10.0.0.1"`, `address: "reviews"`, "address: ParseAddr"},
		{"endpoints", `port_value: 9080`, `port_value: 90800`, "is not a port"},
		{"dns", `"fd00::1"`, `"here"`, "ParseAddr"},
	}
	for _, c := range tests {
		t.Run(c.want, func(t *testing.T) {
			file := "testdata/" + c.file + ".textproto"
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			text := strings.Replace(string(raw), c.old, c.new, 1)
			if text == string(raw) {
				t.Fatalf("%s does not contain %q", file, c.old)
			}
			m := read(t, file)
			proto.Reset(m)
			if err := prototext.Unmarshal([]byte(text), m); err != nil {
				t.Fatal(err)
			}
			_, err = decodeMessage(m)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

func TestUnknownFieldIsRefused(t *testing.T) {
	m := read(t, "testdata/endpoints.textproto")
	m.ProtoReflect().SetUnknown([]byte{0xfa, 0x7f, 0x01, 'x'})
	if _, err := decodeMessage(m); err == nil || !strings.Contains(err.Error(), "does not know") {
		t.Errorf("error %v", err)
	}
}

// FuzzResource feeds arbitrary bytes as resources of each type: whatever they are, decoding ends with a value or an error.
func FuzzResource(f *testing.F) {
	types := []string{decode.ListenerType, decode.RoutesType, decode.ClusterType, decode.EndpointsType, decode.NamesType}
	for _, file := range messages(f) {
		a, err := anypb.New(read(f, file))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(slices.Index(types, a.TypeUrl), a.Value)
	}
	f.Fuzz(func(t *testing.T, kind int, data []byte) {
		if kind < 0 || kind >= len(types) {
			return
		}
		v, err := decode.Resource(&anypb.Any{TypeUrl: types[kind], Value: data})
		if (v == nil) == (err == nil) {
			t.Errorf("value %v, error %v", v, err)
		}
	})
}
