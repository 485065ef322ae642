package routing

import (
	"regexp"
	"strings"
	"testing"

	"github.com/weftmesh/weft/internal/control/model"
)

func TestJoinedRewrite(t *testing.T) {
	for _, c := range []struct{ prefix, by, path, want string }{
		{"/", "/pre", "/zz", "/pre/zz"},
		{"/", "/pre", "/zz/y/", "/pre/zz/y/"},
		{"/", "/pre", "/", "/pre"},
		{"/", "/pre/", "/zz", "/pre/zz"},
		{"/", "/", "/zz", "/zz"},
		{"/", `/a\1`, "/zz", `/a\1/zz`},
		{"/foo/", "/xyz/", "/foo/bar", "/xyz/bar"},
		{"/foo", "/", "/foo", "/"},
	} {
		m := &model.HTTPMatch{Path: model.StringMatch{Prefix: c.prefix, SegmentPrefix: true}}
		rx := JoinedRewrite(m, c.by)
		if rx == nil {
			t.Fatalf("%s by %s: plain replacement", c.prefix, c.by)
		}
		by := strings.NewReplacer("$", "$$", `\\`, `\`, `\1`, "${1}").Replace(rx.Substitution)
		if got := regexp.MustCompile(rx.Pattern.Regex).ReplaceAllString(c.path, by); got != c.want {
			t.Errorf("%s by %s of %s: got %s, want %s", c.prefix, c.by, c.path, got, c.want)
		}
	}
	for _, m := range []*model.HTTPMatch{nil, {Path: model.StringMatch{Prefix: "/"}}, {Path: model.StringMatch{Prefix: "/foo", SegmentPrefix: true}}} {
		if rx := JoinedRewrite(m, "/pre"); rx != nil {
			t.Errorf("%v: %v, want plain replacement", m, rx)
		}
	}
}
