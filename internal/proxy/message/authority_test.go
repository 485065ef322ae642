package message

import "testing"

func TestValidAuthority(t *testing.T) {
	for s, want := range map[string]bool{
		"a": true, "a.example:80": true, "a:": true, "10.0.0.1:65535": true, "[::1]": true, "[fd00::1]:8080": true, "[::ffff:1.2.3.4]": true,
		"[v1.a:b]": true, "a_b": true,
		"": false, ":80": false, "a b": false, "a/b": false, "u@a": false, "a:b": false, "a:65536": false, "a:000080": false, "a:+1": false,
		"a%41": false, "[]": false, "[:]": false, "[::g]": false, "[1.2.3.4]": false, "[::1": false, "[::1]a": false, "[::1%25eth0]": false,
		"[::1%eth0]": false, "::1": false, "a:1:2": false, "é": false,
	} {
		if ValidAuthority(s) != want {
			t.Errorf("%q: %v", s, !want)
		}
	}
}
