package fields_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weftmesh/weft/internal/explain/fields"
)

func none(string) bool { return false }

func tls(t *testing.T, key string, ciphers ...string) *anypb.Any {
	t.Helper()
	a, err := anypb.New(&tlsv3.CommonTlsContext{TlsParams: &tlsv3.TlsParameters{CipherSuites: ciphers}, TlsCertificates: []*tlsv3.TlsCertificate{{
		PrivateKey: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: key}}}}})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestCompare(t *testing.T) {
	match := func(name string, config *anypb.Any) *clusterv3.Cluster_TransportSocketMatch {
		return &clusterv3.Cluster_TransportSocketMatch{Name: name, TransportSocket: &corev3.TransportSocket{ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: config}}}
	}
	before := &clusterv3.Cluster{Name: "x", LbPolicy: clusterv3.Cluster_RANDOM, ConnectTimeout: durationpb.New(time.Second),
		OutlierDetection:       &clusterv3.OutlierDetection{Consecutive_5Xx: wrapperspb.UInt32(5)},
		TransportSocketMatches: []*clusterv3.Cluster_TransportSocketMatch{match("a", tls(t, "-----BEGIN PRIVATE KEY-----\nSECRET", "c1", "c2")), match("b", nil), match("gone", nil)}}
	after := &clusterv3.Cluster{Name: "y", ConnectTimeout: durationpb.New(2 * time.Second),
		TransportSocketMatches: []*clusterv3.Cluster_TransportSocketMatch{match("b", nil), match("a", tls(t, "another SECRET", "c2", "c1"))}}
	var got []string
	for _, c := range fields.Compare(before, after, func(path string) bool { return path == "name" }) {
		got = append(got, c.Path+": "+c.Before+" -> "+c.After)
	}
	all := strings.Join(got, "\n")
	for _, want := range []string{"lb_policy: RANDOM -> ROUND_ROBIN", "connect_timeout: 1s -> 2s", "outlier_detection: consecutive_5xx", "-> none",
		"transport_socket_matches in order: a, b -> b, a", "transport_socket_matches[gone]: ",
		"transport_socket_matches[a].transport_socket.typed_config.tls_params.cipher_suites: c1, c2 -> c2, c1", "private_key.inline_string: a key ("} {
		if !strings.Contains(all, want) {
			t.Errorf("no %q in\n%s", want, all)
		}
	}
	if strings.Contains(all, "SECRET") || strings.Contains(all, "name: x") {
		t.Errorf("what is secret or ignored is told:\n%s", all)
	}
	if again := fields.Compare(before, proto.Clone(before), none); len(again) > 0 {
		t.Error(again)
	}
}

// TestGather: what two routes say is no difference to what they say in another order or in one; what one says newly is.
func TestGather(t *testing.T) {
	host := func(hosts ...*routev3.VirtualHost) *routev3.RouteConfiguration {
		return &routev3.RouteConfiguration{VirtualHosts: hosts}
	}
	one, two := &routev3.VirtualHost{Name: "1", RetryPolicy: &routev3.RetryPolicy{RetryOn: "5xx"}}, &routev3.VirtualHost{Name: "2"}
	if got := fields.Gather(host(one, two), host(two, one, two), none); len(got) > 0 {
		t.Error(got)
	}
	want := []fields.Change{{"virtual_hosts.name", "2", fields.None}}
	if got := fields.Gather(host(one, two), host(one), none); !slices.Equal(got, want) {
		t.Error(got)
	}
}

// TestGatherAsksOnceForAPath: whatever says what to ignore may be slow, and a table of routes may hold very many.
func TestGatherAsksOnceForAPath(t *testing.T) {
	many := &routev3.RouteConfiguration{}
	for range 1000 {
		many.VirtualHosts = append(many.VirtualHosts, &routev3.VirtualHost{Name: "x", Domains: []string{"a", "b"}})
	}
	asked := map[string]int{}
	fields.Gather(many, many, func(path string) bool { asked[path]++; return false })
	for path, n := range asked {
		if n > 1 {
			t.Errorf("%s: asked %d times", path, n)
		}
	}
}
