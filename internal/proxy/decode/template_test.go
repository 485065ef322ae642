package decode

import (
	"regexp"
	"slices"
	"testing"
)

func TestTemplatePattern(t *testing.T) {
	for _, c := range []struct {
		template, path string
		want           []string // the variables' values; nil for no match
	}{
		{"/users/{id}", "/users/7", []string{"7"}},
		{"/users/{id}", "/users/7/8", nil},
		{"/users/{id}", "/users/", nil},
		{"/{a}/x/{b=**}", "/1/x/2/3", []string{"1", "2/3"}},
		{"/{a=v1/*/c}/d", "/v1/b/c/d", []string{"v1/b/c"}},
		{"/*/b.c", "/a/b.c", []string{}},
		{"/*/b.c", "/a/bxc", nil},
		{"/a/**", "/a/b/c", []string{}},
		{"/{name}.{ext}", "", nil}, // not a form that is supported: one variable for each segment
	} {
		p, names, err := templatePattern(c.template)
		if c.path == "" {
			if err == nil {
				t.Errorf("%s: taken as %s", c.template, p)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.template, err)
			continue
		}
		got := regexp.MustCompile("^(?:" + p + ")$").FindStringSubmatch(c.path)
		if (got == nil) != (c.want == nil) || got != nil && !slices.Equal(got[1:], c.want) || got != nil && len(names) != len(c.want) {
			t.Errorf("%s on %s: %q (variables %v), want %q", c.template, c.path, got, names, c.want)
		}
	}
}

// FuzzTemplate: a template is refused, or becomes a pattern with a group for each variable, which its rewrite can name.
func FuzzTemplate(f *testing.F) {
	f.Add("/users/{id}/{rest=**}")
	f.Add("/{a=b/*}/**.jpg")
	f.Add("/{")
	f.Fuzz(func(t *testing.T, s string) {
		p, names, err := templatePattern(s)
		if err != nil {
			return
		}
		re, err := regexp.Compile("^(?:" + p + ")$")
		if err != nil || re.NumSubexp() != len(names) {
			t.Fatalf("%q became %q with variables %q: %v", s, p, names, err)
		}
		for i, n := range names {
			if _, err := templateRewrite("/{"+n+"}", names); err != nil && i < 9 {
				t.Errorf("%q: variable %q cannot be used: %v", s, n, err)
			}
		}
	})
}
