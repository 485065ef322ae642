package printable

import "testing"

func TestText(t *testing.T) {
	for in, want := range map[string]string{
		"": "",
		"reviews-v1 “é” 日本 👩‍👩‍👧":   "reviews-v1 “é” 日本 👩‍👩‍👧",
		"a\x1b[2Jb\x00c\nd\te\x7f":  `a\x1b[2Jb\x00c\nd\te\x7f`,
		"\u009b31m":                 `\u009b31m`,
		"safe\u202egnp.exe":         `safe\u202egnp.exe`,
		"half \xff\xc3":             `half \xff\xc3`,
		"a replacement � stays":     "a replacement � stays",
		`back\slashes "and" quotes`: `back\slashes "and" quotes`,
	} {
		if got := Text(in); got != want {
			t.Errorf("%q gives %q, want %q", in, got, want)
		}
	}
	if got := Lines("one\ntwo\x1b"); got != "one\ntwo\\x1b" {
		t.Errorf("got %q", got)
	}
}
