package explain

import "testing"

// TestCutTarget: what a request has of a URL is what was typed of it.
func TestCutTarget(t *testing.T) {
	for _, test := range []struct{ url, before, target string }{
		{"http://a:80/x", "http://a:80", "/x"},
		{"http://a", "http://a", "/"},
		{"http://a?b=/c", "http://a", "/?b=/c"},
		{"http://a/\"q\"?x={1}#y?z", "http://a", "/\"q\"?x={1}"},
		{"http://a#y", "http://a", "/"},
		{"http://[::1]:80/%zz/%2F/../b//", "http://[::1]:80", "/%zz/%2F/../b//"},
		{"a:80/x://y", "a:80", "/x://y"},
		{"http://u@a/|", "http://u@a", "/|"},
	} {
		if before, target := CutTarget(test.url); before != test.before || target != test.target {
			t.Errorf("%s: got %q and %q, want %q and %q", test.url, before, target, test.before, test.target)
		}
	}
}

// TestAsTyped: nothing of a path is encoded, and one that proxies answer with 400 is not judged as another that they would take.
func TestAsTyped(t *testing.T) {
	for _, url := range []string{`http://a/"q"`, "http://a/%zz", "http://a/{x}|", `http://a/\`} {
		talk, err := parse(Request{URL: url})
		if err != nil || "http://a"+talk.request.Path != url {
			t.Errorf("%s: got %v, %v", url, talk, err)
		}
	}
	for _, url := range []string{"http://a/ü", "http://a/\x01", "http://a/x?ü"} {
		if err := (Request{URL: url}).Check(); err == nil {
			t.Errorf("%s is taken", url)
		}
	}
}
