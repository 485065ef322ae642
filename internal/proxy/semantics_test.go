package proxy

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/decode"
)

// semantics is what TestRouteSemantics asks. Statuses say which route has answered.
const semantics = `
name: "semantics"
virtual_hosts { name: "all" domains: "*"
 routes { match { path: "/exact" } direct_response { status: 210 } }
 routes { match { path: "/Any-Case" case_sensitive { value: false } } direct_response { status: 211 } }
 routes { match { path_separated_prefix: "/sep" } direct_response { status: 212 } }
 routes { match { safe_regex { regex: "/re/[0-9]+" } } route { cluster: "reviews" prefix_rewrite: "/whole" } }
 routes { match { prefix: "/h/range" headers { name: "x-n" range_match { start: 1 end: 3 } } } direct_response { status: 201 } }
 routes { match { prefix: "/h/norange" headers { name: "x-n" range_match { start: 1 end: 3 } invert_match: true treat_missing_header_as_empty: true } } direct_response { status: 201 } }
 routes { match { prefix: "/h/present" headers { name: "x-n" present_match: true treat_missing_header_as_empty: true } } direct_response { status: 201 } }
 routes { match { prefix: "/h/absent" headers { name: "x-n" present_match: false } } direct_response { status: 201 } }
 routes { match { prefix: "/h/never" headers { name: "x-n" present_match: false treat_missing_header_as_empty: true } } direct_response { status: 201 } }
 routes { match { prefix: "/h/not" headers { name: "x-n" string_match { exact: "a" } invert_match: true } } direct_response { status: 201 } }
 routes { match { prefix: "/h/joined" headers { name: "x-n" string_match { exact: "a,b" } } } direct_response { status: 201 } }
 routes { match { prefix: "/h/one" headers { name: "x-n" string_match { exact: "b" } } } direct_response { status: 201 } }
 routes { match { prefix: "/h/fold" headers { name: "x-n" string_match { suffix: "YZ" ignore_case: true } } } direct_response { status: 201 } }
 routes { match { prefix: "/h/" } direct_response { status: 299 } }
 routes { match { prefix: "/q/exact" query_parameters { name: "a" string_match { exact: "1" } } } direct_response { status: 201 } }
 routes { match { prefix: "/q/raw" query_parameters { name: "a" string_match { exact: "b%20c" } } } direct_response { status: 201 } }
 routes { match { prefix: "/q/present" query_parameters { name: "a" present_match: true } } direct_response { status: 201 } }
 routes { match { prefix: "/q/absent" query_parameters { name: "a" present_match: false } } direct_response { status: 201 } }
 routes { match { prefix: "/q" } direct_response { status: 299 } }
 routes { match { prefix: "/share" runtime_fraction { default_value { numerator: 0 } } } direct_response { status: 201 } }
 routes { match { prefix: "/share" runtime_fraction { default_value { numerator: 100 } } } direct_response { status: 213 } }
 routes { match { prefix: "/grpc" grpc {} } direct_response { status: 201 } }
 routes { match { prefix: "/grpc" } direct_response { status: 214 } }
 routes { match { prefix: "/path" } route { cluster: "reviews" path_rewrite: "/w%20x" } }
 routes { match { prefix: "/regex" } route { cluster: "reviews" regex_rewrite { pattern { regex: "b" } substitution: "c" } } }
 routes { match { prefix: "/host" } route { cluster: "reviews" host_rewrite_literal: "new.h" append_x_forwarded_host: true } }
 routes { match { prefix: "/byheader" } route { cluster: "reviews" host_rewrite_header: "x-h" } }
 routes { match { prefix: "/split" } route { host_rewrite_literal: "route.h" weighted_clusters { clusters { name: "nowhere" weight {} } clusters { name: "reviews" weight { value: 1 } host_rewrite_literal: "split.h" } } } }
 routes { match { prefix: "/change" } route { cluster: "reviews" } request_headers_to_remove: "x-rm"
  request_headers_to_add { header { key: "x-a" value: "one" } append_action: ADD_IF_ABSENT }
  request_headers_to_add { header { key: "x-a" value: "two" } }
  request_headers_to_add { header { key: "x-b" value: "app" } }
  request_headers_to_add { header { key: "x-b" value: "over" } append_action: OVERWRITE_IF_EXISTS_OR_ADD }
  request_headers_to_add { header { key: "x-c" value: "<%REQ(x-none)%>" } }
  request_headers_to_add { header { key: "x-d" value: "%REQ(x-none)%" } }
  request_headers_to_add { header { key: "x-e" value: "%REQ(x-none)%" } keep_empty_value: true }
  request_headers_to_add { header { key: "x-f" value: "%REQ(x-b)%" } append_action: OVERWRITE_IF_EXISTS_OR_ADD }
  request_headers_to_add { header { key: "x-g" value: "g" } append_action: OVERWRITE_IF_EXISTS }
  request_headers_to_add { header { key: "x-rm" value: "%REQ(x-rm)%|" } } }
 routes { match { prefix: "/to" } redirect { host_redirect: "other.h" response_code: SEE_OTHER } }
 routes { match { prefix: "/" } direct_response { status: 298 } } }`

// TestRouteSemantics asks the proxy what Envoy 1.40 was asked, and where the answers are Envoy's: package parity asks much more, where
// there is an Envoy.
func TestRouteSemantics(t *testing.T) {
	client, server := pair(t)
	server.serve(9080, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out := []string{}
		for name, values := range r.Header {
			if strings.HasPrefix(name, "X-") && len(name) == 3 || name == "X-Forwarded-Host" || name == "X-Rm" || strings.HasPrefix(name, "X-Envoy-Original") {
				out = append(out, fmt.Sprintf("%s=%s", strings.ToLower(name), strings.Join(values, ";")))
			}
		}
		slices.Sort(out)
		io.WriteString(w, strings.Join(append([]string{r.RequestURI, r.Host}, out...), " "))
	}))
	client.routes(t, semantics)
	for _, c := range []struct {
		path, header string // name=value, separated by spaces
		status       int
		want         string
	}{
		{"/exact?q", "", 210, ""}, {"/exact/", "", 298, ""}, {"/EXACT", "", 298, ""}, {"/aNY-cASE", "", 211, ""},
		{"/sep", "", 212, ""}, {"/sep/x", "", 212, ""}, {"/sep?x", "", 212, ""}, {"/separate", "", 298, ""},
		{"/re/12?q=1", "", 200, "/whole?q=1 reviews:9080 x-envoy-original-path=/re/12?q=1"}, {"/re/12x", "", 298, ""}, {"/x/re/12", "", 298, ""},
		{"/h/range", "x-n=1", 201, ""}, {"/h/range", "x-n=3", 299, ""}, {"/h/range", "x-n=a", 299, ""}, {"/h/range", "", 299, ""},
		{"/h/norange", "", 201, ""}, {"/h/norange", "x-n=2", 299, ""},
		{"/h/present", "", 201, ""}, {"/h/absent", "", 201, ""}, {"/h/absent", "x-n=1", 299, ""}, {"/h/never", "", 299, ""}, {"/h/never", "x-n=1", 299, ""},
		{"/h/not", "", 299, ""}, {"/h/not", "x-n=b", 201, ""}, {"/h/joined", "x-n=a x-n=b", 201, ""}, {"/h/one", "x-n=a x-n=b", 201, ""}, {"/h/one", "x-n=a,b", 299, ""}, {"/h/not", "x-n=a x-n=b", 299, ""}, {"/h/fold", "x-n=xyz", 201, ""},
		{"/q/exact?a=1&a=2", "", 201, ""}, {"/q/exact?a=2&a=1", "", 299, ""}, {"/q/raw?a=b%20c", "", 201, ""}, {"/q/present?b&a", "", 201, ""},
		{"/q/present?%61=1", "", 299, ""}, {"/q/absent", "", 201, ""}, {"/q/absent?a=1", "", 299, ""},
		{"/share", "", 213, ""}, {"/grpc", "", 214, ""},
		{"/path?q", "", 200, "/w%20x?q reviews:9080 x-envoy-original-path=/path?q"}, {"/regex/bb?b", "", 200, "/regex/cc?b reviews:9080 x-envoy-original-path=/regex/bb?b"},
		{"/host", "x-forwarded-host=p", 200, "/host new.h x-envoy-original-host=reviews:9080 x-forwarded-host=p,reviews:9080"},
		{"/byheader", "x-h=set.h", 200, "/byheader set.h x-envoy-original-host=reviews:9080 x-h=set.h"}, {"/byheader", "", 200, "/byheader reviews:9080"},
		{"/split", "", 200, "/split route.h x-envoy-original-host=split.h"},
		{"/change", "x-b=orig x-rm=r", 200, "/change reviews:9080 x-a=one;two x-b=over;app x-c=<> x-e= x-f=orig x-rm=|"},
		{"/change", "x-a=orig x-g=old", 200, "/change reviews:9080 x-a=orig;two x-b=over;app x-c=<> x-e= x-g=g x-rm=|"},
		{"/to?q=1", "", 303, "http://other.h/to?q=1"},
	} {
		status, body, location := client.ask(t, c.path, c.header)
		if status == 303 {
			body = location
		}
		if status != c.status || body != c.want {
			t.Errorf("%s [%s]: %d %q, want %d %q", c.path, c.header, status, body, c.status, c.want)
		}
	}
}

// TestUnderscores: fields with underscores pass, unless the configuration says otherwise.
func TestUnderscores(t *testing.T) {
	client, server := pair(t)
	server.serve(9080, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, len(r.Header["Content_length"]), len(r.Header["X-Kept"]))
	}))
	for action, want := range map[conf.UnderscoreAction]string{conf.AllowUnderscores: "200 1 1", conf.DropUnderscores: "200 0 1"} {
		server.underscores(action)
		status, body, _ := client.ask(t, "/", "content_length=5 x-kept=1")
		if got := fmt.Sprint(status, " ", body); got != want {
			t.Errorf("action %d: %s, want %s", action, got, want)
		}
	}
	server.underscores(conf.RefuseUnderscores)
	if status, body, _ := client.ask(t, "/", "content_length=5"); status != 400 || !strings.Contains(body, "underscore") {
		t.Errorf("refused: %d %q", status, body)
	}
	if status, _, _ := client.ask(t, "/", "x-kept=1"); status != 200 {
		t.Errorf("without underscores: %d", status)
	}
}

// routes gives the pod a route configuration for reviews as the control plane would.
func (p *pod) routes(t *testing.T, text string) {
	t.Helper()
	m := &routev3.RouteConfiguration{}
	if err := prototext.Unmarshal([]byte(text), m); err != nil {
		t.Fatal(err)
	}
	a, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	v, err := decode.Resource(a)
	if err != nil {
		t.Fatal(err)
	}
	p.config.publish(func(_ *conf.Snapshot, names map[string]*conf.Target) {
		for _, target := range names {
			target.Routes = v.(*conf.RouteTable)
		}
	})
}

// underscores serves the pod's port with that action.
func (p *pod) underscores(a conf.UnderscoreAction) {
	l := strict(9080)
	for _, c := range l.Chains {
		if c.HTTP != nil {
			c.HTTP.Underscores = a
		}
	}
	p.accepts(l)
}

// ask makes one request to reviews, with fields as "name=value name=value".
func (p *pod) ask(t *testing.T, path, fields string) (status int, body, location string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://reviews:9080"+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	for f := range strings.FieldsSeq(fields) {
		name, value, _ := strings.Cut(f, "=")
		r.Header[http.CanonicalHeaderKey(name)] = append(r.Header[http.CanonicalHeaderKey(name)], value)
	}
	res, err := p.client().Transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b), res.Header.Get("Location")
}
