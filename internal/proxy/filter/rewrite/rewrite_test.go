package rewrite

import (
	"regexp"
	"testing"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/message"
)

func pattern(s string) conf.StringMatch {
	return conf.StringMatch{Kind: conf.Regex, Regexp: regexp.MustCompile(s)}
}

func TestForward(t *testing.T) {
	pre := func(v string) conf.Match { return conf.Match{Path: conf.StringMatch{Kind: conf.PrefixOf, Value: v}} }
	seg := func(v string) conf.Match { m := pre(v); m.PathSeparatedPrefix = true; return m }
	for _, c := range []struct {
		path  string
		match conf.Match
		f     conf.Forward
		want  string
	}{
		{"/a/b?q", pre("/a"), conf.Forward{}, "/a/b?q"},
		{"/a/b?q", pre("/a/"), conf.Forward{PrefixRewrite: "/"}, "/b?q"},
		{"/a/b?q", pre("/a"), conf.Forward{PrefixRewrite: "/"}, "//b?q"}, // as it stands, as Envoy has it
		{"/ab", pre("/a"), conf.Forward{PrefixRewrite: "/x"}, "/xb"},
		{"/a/b", seg("/a"), conf.Forward{PrefixRewrite: "/"}, "/b"},
		{"/a", seg("/a"), conf.Forward{PrefixRewrite: "/"}, "/"},
		{"/a?x=1", seg("/a"), conf.Forward{PrefixRewrite: "/new/"}, "/new?x=1"},
		{"/a", conf.Match{Path: conf.StringMatch{Kind: conf.Exact, Value: "/a"}}, conf.Forward{PrefixRewrite: "/z"}, "/z"},
		{"/a/b?q", conf.Match{Path: conf.StringMatch{Kind: conf.Regex, Regexp: regexp.MustCompile("^/a/.*$")}}, conf.Forward{PrefixRewrite: "/z"}, "/z?q"},
		{"/a/b?q=1", pre("/"), conf.Forward{PathRewrite: "/whole"}, "/whole?q=1"},
		{"/v1/u/7?", pre("/"), conf.Forward{RegexRewrite: &conf.RegexRewrite{Pattern: pattern(`^/v1/u/(\d+)$`), Substitution: `/users/\1/$x`}}, "/users/7/$x?"},
		{"/users/7/a/b", conf.Match{}, conf.Forward{RegexRewrite: &conf.RegexRewrite{Pattern: pattern(`^(?:/users/([^/]+)/(.*))$`), Substitution: `/\2/of/\1`}}, "/a/b/of/7"},
		{"*", pre("/"), conf.Forward{PathRewrite: "/x"}, "*"},
	} {
		r := &message.Request{Path: c.path, Authority: "a"}
		if Forward(r, &c.f, &c.match, true); r.Path != c.want {
			t.Errorf("%s with %+v: got %s, want %s", c.path, c.f, r.Path, c.want)
		}
	}
	r := &message.Request{Path: "/", Authority: "a"}
	if Forward(r, &conf.Forward{HostRewrite: "b"}, &conf.Match{}, true); r.Authority != "b" {
		t.Errorf("authority %q", r.Authority)
	}
	quiet := &message.Request{Path: "/", Authority: "a"}
	if Forward(quiet, &conf.Forward{HostRewrite: "b", PathRewrite: "/c"}, &conf.Match{}, false); quiet.Authority != "b" || quiet.Path != "/c" || quiet.Header.Len() != 0 {
		t.Errorf("untold: %+v", quiet)
	}
}

func TestHost(t *testing.T) {
	for _, c := range []struct {
		f               conf.Forward
		want, forwarded string
	}{
		{conf.Forward{HostRewrite: "b"}, "b", ""},
		{conf.Forward{HostRewrite: "b", AppendHost: true}, "b", "outer,a"},
		{conf.Forward{HostRewrite: "a", AppendHost: true}, "a", "outer"},
		{conf.Forward{HostRewriteHeader: "x-host"}, "c", ""},
		{conf.Forward{HostRewriteHeader: "x-none"}, "a", ""},
		{conf.Forward{HostRewriteHeader: "x-bad"}, "a", ""},
		{conf.Forward{HostRewriteRegex: &conf.RegexRewrite{Pattern: pattern(`^/([^/]+)/.*$`), Substitution: `\1.test`}}, "shop.test", ""},
	} {
		r := &message.Request{Path: "/shop/1?q", Authority: "a"}
		r.Header.Add("X-Host", "c")
		r.Header.Add("X-Bad", "a b")
		r.Header.Add("X-Forwarded-Host", "outer")
		Forward(r, &c.f, &conf.Match{}, true)
		got, _ := r.Header.Get("X-Forwarded-Host")
		if r.Authority != c.want || c.f.AppendHost && got != c.forwarded {
			t.Errorf("%+v: authority %q, x-forwarded-host %q", c.f, r.Authority, got)
		}
	}
}

// TestLocation: the answers of Envoy 1.40, but without ports that go without saying.
func TestLocation(t *testing.T) {
	pre := conf.Match{Path: conf.StringMatch{Kind: conf.PrefixOf, Value: "/a"}}
	re := conf.Match{Path: conf.StringMatch{Kind: conf.Regex, Regexp: regexp.MustCompile("^/a/.*$")}}
	for _, c := range []struct {
		authority string
		rd        conf.Redirect
		match     conf.Match
		want      string
	}{
		{"a.h:8080", conf.Redirect{Path: "/new"}, pre, "http://a.h:8080/new?q=1"},
		{"a.h:80", conf.Redirect{Path: "/new"}, pre, "http://a.h:80/new?q=1"},
		{"a.h", conf.Redirect{Path: "/new?own=1"}, pre, "http://a.h/new?own=1"},
		{"a.h", conf.Redirect{Path: "/new?own=1", StripQuery: true}, pre, "http://a.h/new?own=1"},
		{"a.h:8080", conf.Redirect{Host: "b.h"}, pre, "http://b.h/a/b?q=1"},
		{"a.h:8080", conf.Redirect{Host: "b.h", Port: 80}, pre, "http://b.h/a/b?q=1"},
		{"a.h", conf.Redirect{Scheme: "https"}, pre, "https://a.h/a/b?q=1"},
		{"a.h:80", conf.Redirect{Scheme: "https"}, pre, "https://a.h/a/b?q=1"},
		{"a.h:443", conf.Redirect{Scheme: "https"}, pre, "https://a.h:443/a/b?q=1"},
		{"a.h:8080", conf.Redirect{Scheme: "https"}, pre, "https://a.h:8080/a/b?q=1"},
		{"a.h:8080", conf.Redirect{Scheme: "https", Port: 443}, pre, "https://a.h/a/b?q=1"},
		{"[::1]:80", conf.Redirect{Scheme: "https"}, pre, "https://[::1]/a/b?q=1"},
		{"[::1]", conf.Redirect{Port: 81}, pre, "http://[::1]:81/a/b?q=1"},
		{"a.h", conf.Redirect{PrefixRewrite: "/z", StripQuery: true}, pre, "http://a.h/z/b"},
		{"a.h", conf.Redirect{PrefixRewrite: "/whole"}, re, "http://a.h/whole?q=1"},
	} {
		r := &message.Request{Path: "/a/b?q=1", Authority: c.authority}
		if got := Location(r, &c.rd, &c.match, "http"); got != c.want {
			t.Errorf("%s with %+v: got %s, want %s", c.authority, c.rd, got, c.want)
		}
	}
}
