package cors_test

import (
	"strings"
	"testing"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/filter/cors"
	"github.com/weftmesh/weft/internal/proxy/message"
)

func request(method string, fields ...string) *message.Request {
	r := &message.Request{Method: method}
	for _, f := range fields {
		n, v, _ := strings.Cut(f, "=")
		r.Header.Add(n, v)
	}
	return r
}

func exact(v string) []conf.StringMatch { return []conf.StringMatch{{Kind: conf.Exact, Value: v}} }

func TestDecide(t *testing.T) {
	shop := &conf.CORS{Origins: exact("https://shop.test"), Fraction: 1e6}
	strict := &conf.CORS{Origins: exact("https://shop.test"), Fraction: 1e6, AnswerUnmatched: true}
	all := &conf.CORS{Origins: exact("*"), Fraction: 1e6}
	const ask = "Access-Control-Request-Method=PUT"
	tests := []struct {
		name   string
		policy *conf.CORS
		r      *message.Request
		random uint32
		want   cors.Kind
	}{
		{"no policy", nil, request("GET", "Origin=https://shop.test"), 0, cors.Same},
		{"no origin", shop, request("OPTIONS", ask), 0, cors.Same},
		{"allowed", shop, request("GET", "Origin=https://shop.test"), 0, cors.Actual},
		{"other origin", shop, request("GET", "Origin=https://evil.test"), 0, cors.Same},
		{"preflight", shop, request("OPTIONS", "Origin=https://shop.test", ask), 0, cors.Preflight},
		{"OPTIONS that asks nothing", shop, request("OPTIONS", "Origin=https://shop.test"), 0, cors.Actual},
		{"preflight of another", shop, request("OPTIONS", "Origin=https://evil.test", ask), 0, cors.Same},
		{"preflight of another, answered", strict, request("OPTIONS", "Origin=https://evil.test", ask), 0, cors.Unmatched},
		{"request of another, forwarded", strict, request("GET", "Origin=https://evil.test"), 0, cors.Same},
		{"any", all, request("GET", "Origin=null"), 0, cors.Actual},
		{"outside the share", &conf.CORS{Origins: exact("*"), Fraction: 500}, request("GET", "Origin=x"), 500, cors.Same},
		{"inside the share", &conf.CORS{Origins: exact("*"), Fraction: 500}, request("GET", "Origin=x"), 499, cors.Actual},
	}
	for _, c := range tests {
		if got := cors.Decide(c.policy, c.r, c.random); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

func fields(h *message.Header) string {
	var out []string
	for f := range h.All() {
		out = append(out, strings.TrimPrefix(f.Name, "Access-Control-")+"="+f.Value)
	}
	return strings.Join(out, " ")
}

func TestFields(t *testing.T) {
	r := request("OPTIONS", "Origin=https://shop.test", "Access-Control-Request-Method=PUT", "Access-Control-Request-Headers=x-a,x-b",
		"Access-Control-Request-Private-Network=true")
	full := &conf.CORS{Methods: "GET,PUT", Headers: "x-a", Expose: "x-c", MaxAge: "86400"}
	open := &conf.CORS{Methods: "*", Headers: "*", Credentials: true, PrivateNetwork: true}
	var permitted, marked, wild message.Header
	marked.Add("Access-Control-Allow-Origin", "https://upstream.test")
	cors.Permit(full, r, &permitted)
	cors.Mark(full, r, &marked)
	cors.Permit(open, r, &wild)
	for _, c := range []struct{ name, got, want string }{
		{"preflight", fields(&permitted), "Allow-Origin=https://shop.test Vary=Origin Allow-Methods=GET,PUT Allow-Headers=x-a Max-Age=86400"},
		{"actual", fields(&marked), "Allow-Origin=https://shop.test Vary=Origin Expose-Headers=x-c"},
		{"with credentials a star is what is asked for", fields(&wild), "Allow-Origin=https://shop.test Allow-Credentials=true Vary=Origin Allow-Methods=PUT Allow-Headers=x-a,x-b Allow-Private-Network=true"},
	} {
		if c.got != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", c.name, c.got, c.want)
		}
	}
}
