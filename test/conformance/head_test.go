package conformance

import (
	"bytes"
	"strings"
	"testing"
)

// TestRequestLine: RFC 9112 sections 2 and 3.
func TestRequestLine(t *testing.T) {
	const host = "\r\nHost: a\r\n\r\n"
	talks := refused("400", map[string]string{
		"two spaces behind the method":        "GET  / HTTP/1.1" + host,
		"two spaces behind the target":        "GET /  HTTP/1.1" + host,
		"space before the method":             " GET / HTTP/1.1" + host,
		"space at the end":                    "GET / HTTP/1.1 " + host,
		"tab behind the method":               "GET\t/ HTTP/1.1" + host,
		"tab behind the target":               "GET /\tHTTP/1.1" + host,
		"vertical tab behind the method":      "GET\v/ HTTP/1.1" + host,
		"form feed behind the target":         "GET /\fHTTP/1.1" + host,
		"CR behind the method":                "GET\r/ HTTP/1.1" + host,
		"CR behind the target":                "GET /\rHTTP/1.1" + host,
		"CR CR at the end":                    "GET / HTTP/1.1\r" + host,
		"LF alone":                            "GET / HTTP/1.1\nHost: a\n\n",
		"LF after the request line":           "GET / HTTP/1.1\nHost: a\r\n\r\n",
		"NUL in the target":                   "GET /\x00 HTTP/1.1" + host,
		"NUL in the method":                   "G\x00T / HTTP/1.1" + host,
		"space in the target":                 "GET /a b HTTP/1.1" + host,
		"no target":                           "GET HTTP/1.1" + host,
		"empty target":                        "GET  HTTP/1.1" + host,
		"no version (HTTP/0.9)":               "GET /\r\n\r\n",
		"no version, with fields":             "GET /" + host,
		"method alone":                        "GET\r\n\r\n",
		"no version, and no more":             "GET /\r\n",
		"no more than a bad version":          "GET / HTTP/1.x\r\nHost: a\r\n",
		"TRACE with content":                  "TRACE / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
		"TRACE with chunks":                   "TRACE / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"version in lower case":               "GET / http/1.1" + host,
		"version in mixed case":               "GET / Http/1.1" + host,
		"version without minor":               "GET / HTTP/1" + host,
		"version without minor, with dot":     "GET / HTTP/1." + host,
		"version with three numbers":          "GET / HTTP/1.1.1" + host,
		"version with two digits":             "GET / HTTP/1.10" + host,
		"version with leading zero":           "GET / HTTP/01.1" + host,
		"version with a space":                "GET / HTTP/1 .1" + host,
		"version with sign":                   "GET / HTTP/+1.1" + host,
		"version with letter":                 "GET / HTTP/1.x" + host,
		"version with comma":                  "GET / HTTP/1,1" + host,
		"version of another protocol":         "GET / ICY/1.1" + host,
		"version of another protocol, longer": "GET / HTTPS/1.1" + host,
		"version without slash":               "GET / HTTP1.1" + host,
		"two versions":                        "GET / HTTP/1.1 HTTP/1.1" + host,
		"fragment":                            "GET /a#b HTTP/1.1" + host,
		"high byte in the target":             "GET /\xe9 HTTP/1.1" + host,
		"UTF-8 in the target":                 "GET /\xc3\xa9 HTTP/1.1" + host,
		"DEL in the target":                   "GET /\x7f HTTP/1.1" + host,
		"relative target":                     "GET a/b HTTP/1.1" + host,
		"target is a query":                   "GET ?a HTTP/1.1" + host,
		"target is an authority":              "GET a:80 HTTP/1.1" + host,
		"asterisk with GET":                   "GET * HTTP/1.1" + host,
		"asterisk with POST":                  "POST * HTTP/1.1" + host,
		"two asterisks":                       "OPTIONS ** HTTP/1.1" + host,
		"asterisk and path":                   "OPTIONS */a HTTP/1.1" + host,
		"backslash target":                    "GET \\a HTTP/1.1" + host,
		"method with slash":                   "GE/T / HTTP/1.1" + host,
		"method with colon":                   "GET: / HTTP/1.1" + host,
		"method with brackets":                "G[]T / HTTP/1.1" + host,
		"method with quotes":                  "\"GET\" / HTTP/1.1" + host,
		"method with high byte":               "GET\xff / HTTP/1.1" + host,
		"method with a comma":                 "GET,POST / HTTP/1.1" + host,
		"a response":                          "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
		"two empty lines before":              "\r\n\r\nGET / HTTP/1.1" + host,
		"LF before":                           "\nGET / HTTP/1.1" + host,
		"CR before":                           "\rGET / HTTP/1.1" + host,
	})
	talks = append(talks, refused("505", map[string]string{
		"version 2.0":    "GET / HTTP/2.0" + host,
		"version 3.1":    "GET / HTTP/3.1" + host,
		"version 0.9":    "GET / HTTP/0.9" + host,
		"version 9.9":    "GET / HTTP/9.9" + host,
		"half a preface": "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
	})...)
	talks = append(talks, refused("414", map[string]string{
		"target too long":                 "GET /" + strings.Repeat("a", 33<<10) + " HTTP/1.1" + host,
		"target that never ends":          "GET /" + strings.Repeat("a", 128<<10),
		"method that never ends":          strings.Repeat("A", 128<<10),
		"target longer than a whole head": "GET /" + strings.Repeat("a", 1<<20) + " HTTP/1.1" + host,
	})...)
	talks = append(talks,
		talk{"an empty line before", "\r\nGET /g HTTP/1.1" + host, "200 open", []string{"GET /g a -"}},
		talk{"an empty line between", "GET /1 HTTP/1.1" + host + "\r\nGET /2 HTTP/1.1" + host, "200 200 open", []string{"GET /1 a -", "GET /2 a -"}},
		talk{"version 1.2", "GET /g HTTP/1.2" + host, "200 open", []string{"GET /g a -"}},
		talk{"version 1.9", "GET /g HTTP/1.9" + host, "200 open", []string{"GET /g a -"}},
		talk{"method in lower case", "get /g HTTP/1.1" + host, "200 open", []string{"get /g a -"}},
		talk{"method in mixed case", "GeT /g HTTP/1.1" + host, "200 open", []string{"GeT /g a -"}},
		talk{"method that nobody knows", "WHATEVER /g HTTP/1.1" + host, "200 open", []string{"WHATEVER /g a -"}},
		talk{"method of every token character", "!#$%&'*+-.^_`|~09azAZ /g HTTP/1.1" + host, "200 open", []string{"!#$%&'*+-.^_`|~09azAZ /g a -"}},
		talk{"method of a kilobyte", strings.Repeat("M", 1000) + " /g HTTP/1.1" + host, "200 open", []string{strings.Repeat("M", 1000) + " /g a -"}},
		talk{"method that begins like another", "GETX /g HTTP/1.1" + host, "200 open", []string{"GETX /g a -"}},
		talk{"long target", "GET /" + strings.Repeat("a", 16<<10) + " HTTP/1.1" + host, "200 open", []string{"GET /" + strings.Repeat("a", 16<<10) + " a -"}},
		talk{"target with an empty query", "GET /g? HTTP/1.1" + host, "200 open", []string{"GET /g? a -"}},
		talk{"target with everything in its query", "GET /g?a=b&c=/?:@!$'()*+,; HTTP/1.1" + host, "200 open", []string{"GET /g?a=b&c=/?:@!$'()*+,; a -"}},
		talk{"target with two slashes", "GET //evil.example/x HTTP/1.1" + host, "200 open", []string{"GET //evil.example/x a -"}},
		talk{"target that looks absolute", "GET /http://evil.example/x HTTP/1.1" + host, "200 open", []string{"GET /http://evil.example/x a -"}},
		talk{"target with escapes", "GET /%41%00%2f HTTP/1.1" + host, "200 open", []string{"GET /%41%00%2f a -"}},
		talk{"asterisk", "OPTIONS * HTTP/1.1" + host, "200 open", []string{"OPTIONS * a -"}},
		talk{"asterisk by absolute form", "OPTIONS http://b HTTP/1.1" + host, "200 open", []string{"OPTIONS * b -"}},
		talk{"TRACE", "TRACE /g HTTP/1.1" + host, "200 open", []string{"TRACE /g a -"}},
		talk{"hops left", "OPTIONS /g HTTP/1.1\r\nMax-Forwards: 3" + host, "200 open", []string{"OPTIONS /g a -"}},
		talk{"no hops left", "OPTIONS /g HTTP/1.1\r\nMax-Forwards: 0" + host, "200 open", nil},
		talk{"no hops left for TRACE", "TRACE /g HTTP/1.1\r\nMax-Forwards: 0" + host, "405 open", nil},
		talk{"hops of other methods", "GET /g HTTP/1.1\r\nMax-Forwards: 0" + host, "200 open", []string{"GET /g a -"}},
		talk{"hops that are no number", "OPTIONS /g HTTP/1.1\r\nMax-Forwards: x" + host, "200 open", []string{"OPTIONS /g a -"}},
		talk{"nothing", "", "waits", nil},
		talk{"cut off in the method", "GE", "waits", nil},
		talk{"cut off in the target", "GET /a", "waits", nil},
		talk{"cut off in the version", "GET /a HTTP/1.", "waits", nil},
		talk{"cut off behind CR", "GET /a HTTP/1.1\r", "waits", nil},
	)
	playAll(t, talks)
}

// TestFields: RFC 9112 section 5, RFC 9110 section 5.
func TestFields(t *testing.T) {
	get := func(fields string) string { return "GET /g HTTP/1.1\r\nHost: a\r\n" + fields + "\r\n" }
	talks := refused("400", map[string]string{
		"no colon":                        get("nonsense\r\n"),
		"no name":                         get(": v\r\n"),
		"no name, with space":             get(" : v\r\n"),
		"name with space":                 get("X Y: v\r\n"),
		"space before the colon":          get("X : v\r\n"),
		"tab before the colon":            get("X\t: v\r\n"),
		"name with parentheses":           get("X(): v\r\n"),
		"name with slash":                 get("X/Y: v\r\n"),
		"name with brackets":              get("X[]: v\r\n"),
		"name with at sign":               get("X@Y: v\r\n"),
		"name with quotes":                get("\"X\": v\r\n"),
		"name with semicolon":             get("X;Y: v\r\n"),
		"name with equals sign":           get("X=Y: v\r\n"),
		"name with NUL":                   get("X\x00: v\r\n"),
		"name with DEL":                   get("X\x7f: v\r\n"),
		"name with high byte":             get("X\xe9: v\r\n"),
		"name with bare CR":               get("X\rY: v\r\n"),
		"pseudo-header":                   get(":path: /other\r\n"),
		"value with NUL":                  get("X: a\x00b\r\n"),
		"value with bare CR":              get("X: a\rb\r\n"),
		"value that begins with bare CR":  get("X: \rb\r\n"),
		"value that ends with CR CR":      get("X: a\r\r\n"),
		"value with bare LF":              get("X: a\nb\r\n"),
		"value with DEL":                  get("X: a\x7fb\r\n"),
		"value with escape":               get("X: a\x1bb\r\n"),
		"value with backspace":            get("X: a\bb\r\n"),
		"value with vertical tab":         get("X: a\vb\r\n"),
		"line ends in LF":                 get("X: a\n"),
		"line ends in CR":                 get("X: a\rY: b\r\n"),
		"end is LF":                       "GET /g HTTP/1.1\r\nHost: a\r\n\n",
		"end is LF LF":                    "GET /g HTTP/1.1\r\nHost: a\n\n",
		"folded by a space":               get("X: a\r\n b\r\n"),
		"folded by a tab":                 get("X: a\r\n\tb\r\n"),
		"folded, nothing behind":          get("X: a\r\n \r\n"),
		"folded without a value":          get("X:\r\n b\r\n"),
		"space before the first":          "GET /g HTTP/1.1\r\n Host: a\r\n\r\n",
		"tab before the first":            "GET /g HTTP/1.1\r\n\tHost: a\r\n\r\n",
		"space, then a field":             "GET /g HTTP/1.1\r\n X: y\r\nHost: a\r\n\r\n",
		"space alone before the first":    "GET /g HTTP/1.1\r\n \r\nHost: a\r\n\r\n",
		"request line twice":              "GET /g HTTP/1.1\r\nGET /h HTTP/1.1\r\nHost: a\r\n\r\n",
		"byte order mark before the name": get("\xef\xbb\xbfX: v\r\n"),
	})
	talks = append(talks, refused("431", map[string]string{
		"value too large":            get("X: " + strings.Repeat("a", 64<<10) + "\r\n"),
		"name too large":             get(strings.Repeat("X", 64<<10) + ": v\r\n"),
		"value that never ends":      "GET /g HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("a", 1<<20),
		"too many":                   get(strings.Repeat("X: v\r\n", 100)),
		"too many, too large":        get(strings.Repeat("X: v\r\n", 50_000)),
		"large in sum":               get(strings.Repeat("X: "+strings.Repeat("a", 1000)+"\r\n", 64)),
		"head that goes on for ever": "GET /g HTTP/1.1\r\n" + strings.Repeat("X: y\r\n", 20_000),
	})...)
	talks = append(talks,
		talk{"empty value", get("X:\r\n"), "200 open", []string{"GET /g a -"}},
		talk{"no space", get("X:y\r\n"), "200 open", []string{"GET /g a -"}},
		talk{"obs-text", get("X: \x80\xff\r\n"), "200 open", []string{"GET /g a -"}},
		talk{"tab in a value", get("X: a\tb\r\n"), "200 open", []string{"GET /g a -"}},
		talk{"name of every token character", get("!#$%&'*+-.^_`|~09azAZ: v\r\n"), "200 open", []string{"GET /g a -"}},
		talk{"large value", get("X: " + strings.Repeat("a", 32<<10) + "\r\n"), "200 open", []string{"GET /g a -"}},
		talk{"many", get(strings.Repeat("X: v\r\n", 90)), "200 open", []string{"GET /g a -"}},
		talk{"cut off in a name", "GET /g HTTP/1.1\r\nHo", "waits", nil},
		talk{"cut off in a value", "GET /g HTTP/1.1\r\nHost: a", "waits", nil},
		talk{"cut off between lines", "GET /g HTTP/1.1\r\nHost: a\r\n", "waits", nil},
		talk{"cut off in the end", "GET /g HTTP/1.1\r\nHost: a\r\n\r", "waits", nil},
	)
	playAll(t, talks)
}

// TestHost: RFC 9112 section 3.2, RFC 9110 section 7.2.
func TestHost(t *testing.T) {
	get := func(host string) string { return "GET /g HTTP/1.1\r\nHost: " + host + "\r\n\r\n" }
	talks := refused("400", map[string]string{
		"none":                             "GET /g HTTP/1.1\r\n\r\n",
		"none, in 1.2":                     "GET /g HTTP/1.2\r\n\r\n",
		"none, absolute form":              "GET http://a/g HTTP/1.1\r\n\r\n",
		"two that differ":                  "GET /g HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
		"two alike":                        "GET /g HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
		"two, second in other case":        "GET /g HTTP/1.1\r\nHost: a\r\nhOsT: b\r\n\r\n",
		"two, far apart":                   "GET /g HTTP/1.1\r\nHost: a\r\nX: y\r\nHost: b\r\n\r\n",
		"two in HTTP/1.0":                  "GET /g HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
		"two, first empty":                 "GET /g HTTP/1.1\r\nHost:\r\nHost: a\r\n\r\n",
		"two, absolute form":               "GET http://a/g HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
		"empty":                            get(""),
		"spaces":                           get("   "),
		"space within":                     get("a b"),
		"tab within":                       get("a\tb"),
		"with a path":                      get("a/b"),
		"with a slash":                     get("a/"),
		"with a query":                     get("a?b"),
		"with a fragment":                  get("a#b"),
		"with a backslash":                 get("a\\b"),
		"with userinfo":                    get("user@a"),
		"with userinfo and password":       get("user:secret@a"),
		"with a scheme":                    get("http://a"),
		"with angle brackets":              get("<a>"),
		"with quotes":                      get("\"a\""),
		"with a percent sign":              get("a%41"),
		"with a caret":                     get("a^b"),
		"with a bar":                       get("a|b"),
		"with braces":                      get("{a}"),
		"with a high byte":                 get("\xe9.example"),
		"with NUL":                         get("a\x00b"),
		"port beyond 65535":                get("a:65536"),
		"port with a sign":                 get("a:+80"),
		"port with letters":                get("a:http"),
		"port with a space":                get("a: 80"),
		"port with leading zeros":          get("a:000080"),
		"two ports":                        get("a:80:90"),
		"port alone":                       get(":80"),
		"bracket open":                     get("[::1"),
		"bracket closed":                   get("::1]"),
		"IPv6 that is none":                get("[::g]"),
		"IPv6 with a zone":                 get("[fe80::1%25eth0]"),
		"IPv4 in brackets":                 get("[192.0.2.1]"),
		"IPv6 without brackets":            get("::1"),
		"brackets empty":                   get("[]"),
		"letters behind brackets":          get("[::1]a"),
		"letters before brackets":          get("a[::1]"),
		"list":                             get("a, b"),
		"absolute form with userinfo":      "GET http://user@a/g HTTP/1.1\r\nHost: a\r\n\r\n",
		"absolute form without a host":     "GET http:///g HTTP/1.1\r\nHost: a\r\n\r\n",
		"absolute form with a port alone":  "GET http://:80/g HTTP/1.1\r\nHost: a\r\n\r\n",
		"absolute form with bad port":      "GET http://a:x/g HTTP/1.1\r\nHost: a\r\n\r\n",
		"absolute form of another scheme":  "GET ftp://a/g HTTP/1.1\r\nHost: a\r\n\r\n",
		"absolute form with a bad Host":    "GET http://a/g HTTP/1.1\r\nHost: a b\r\n\r\n",
		"absolute form with an empty Host": "GET http://a/g HTTP/1.1\r\nHost:\r\n\r\n",
		"absolute form with one slash":     "GET http:/a/g HTTP/1.1\r\nHost: a\r\n\r\n",
		"absolute form with a backslash":   "GET http://a\\g HTTP/1.1\r\nHost: a\r\n\r\n",
		"absolute form with fragment":      "GET http://a/g#f HTTP/1.1\r\nHost: a\r\n\r\n",
		"space before the colon":           "GET /g HTTP/1.1\r\nHost : a\r\n\r\n",
	})
	talks = append(talks,
		talk{"name and port", get("a.example:8080"), "200 open", []string{"GET /g a.example:8080 -"}},
		talk{"name in upper case", get("A.Example"), "200 open", []string{"GET /g A.Example -"}},
		talk{"name with final dot", get("a.example."), "200 open", []string{"GET /g a.example. -"}},
		talk{"name with underscore", get("a_b.example"), "200 open", []string{"GET /g a_b.example -"}},
		talk{"empty port", get("a:"), "200 open", []string{"GET /g a: -"}},
		talk{"IPv4", get("192.0.2.1:80"), "200 open", []string{"GET /g 192.0.2.1:80 -"}},
		talk{"IPv6", get("[2001:db8::1]"), "200 open", []string{"GET /g [2001:db8::1] -"}},
		talk{"address of the future", get("[v1.a:b]"), "200 open", []string{"GET /g [v1.a:b] -"}},
		talk{"IPv6 and port", get("[2001:db8::1]:80"), "200 open", []string{"GET /g [2001:db8::1]:80 -"}},
		talk{"last field", "GET /g HTTP/1.1\r\nX: y\r\nhost:a\r\n\r\n", "200 open", []string{"GET /g a -"}},
		talk{"listed by Connection", "GET /g HTTP/1.1\r\nHost: a\r\nConnection: Host\r\n\r\n", "200 open", []string{"GET /g a -"}},
		talk{"absolute form", "GET http://a/g HTTP/1.1\r\nHost: a\r\n\r\n", "200 open", []string{"GET /g a -"}},
		talk{"absolute form wins over Host", "GET http://a/g HTTP/1.1\r\nHost: b\r\n\r\n", "200 open", []string{"GET /g a -"}},
		talk{"absolute form in upper case", "GET HTTP://A/g HTTP/1.1\r\nHost: b\r\n\r\n", "200 open", []string{"GET /g A -"}},
		talk{"absolute form without a path", "GET http://a HTTP/1.1\r\nHost: a\r\n\r\n", "200 open", []string{"GET / a -"}},
		talk{"absolute form with a query alone", "GET http://a?q HTTP/1.1\r\nHost: a\r\n\r\n", "200 open", []string{"GET /?q a -"}},
		talk{"absolute form with a port", "GET http://a:8080/g HTTP/1.1\r\nHost: a\r\n\r\n", "200 open", []string{"GET /g a:8080 -"}},
		talk{"absolute form within absolute form", "GET http://a/http://b/ HTTP/1.1\r\nHost: b\r\n\r\n", "200 open", []string{"GET /http://b/ a -"}},
		talk{"absolute form with at sign in its path", "GET http://a/@b HTTP/1.1\r\nHost: a\r\n\r\n", "200 open", []string{"GET /@b a -"}},
		talk{"absolute form in HTTP/1.0", "GET http://a/g HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "200 open", []string{"GET /g a -"}},
	)
	playAll(t, talks)
}

// TestBytes: what is forwarded is what came, in its order and case, but for what the hop itself adds and takes.
func TestBytes(t *testing.T) {
	const sent = "PATCH /%41/..;/a?b=%2F HTTP/1.1\r\n" +
		"x-FIRST: 1\r\nHOST: A.Example:99\r\nAccept:  */* \t\r\nCookie: a=b\r\ncookie: c=d\r\nx-first: 2\r\nKeep-Alive: timeout=9\r\nContent-length: 02\r\n" +
		"Set-Cookie: \xff\r\nConnection: x-mine, Close , TE\r\nX-Mine: gone\r\nTE: trailers, deflate\r\nX-Empty:\r\nProxy-Connection: keep-alive\r\n" +
		"Trailer: T\r\nX_underscore: v\r\n\r\nhi"
	const want = "PATCH /%41/..;/a?b=%2F HTTP/1.1\r\n" +
		"x-FIRST: 1\r\nHOST: A.Example:99\r\nAccept: */*\r\nCookie: a=b\r\ncookie: c=d\r\nx-first: 2\r\nContent-length: 2\r\n" +
		"Set-Cookie: \xff\r\nTE: trailers\r\nX-Empty: \r\nTrailer: T\r\nX_underscore: v\r\n"
	for _, w := range ways(t, echo) {
		t.Run(w.name, func(t *testing.T) {
			c := dial(t, w.address)
			c.send(sent)
			if a, err := c.read("PATCH"); err != nil || !a.Close || !c.ended() {
				t.Fatalf("%v, close %v", err, a.Close)
			}
			r := w.backend.Received()
			if len(r) != 1 {
				t.Fatalf("%d requests", len(r))
			}
			head, added, ok := bytes.Cut(r[0].Raw, []byte("X_underscore: v\r\n"))
			if got := string(head) + "X_underscore: v\r\n"; !ok || got != want {
				t.Errorf("the backend got\n%q, want\n%q", got, want)
			}
			for _, line := range strings.Split(strings.TrimSuffix(string(added), "\r\n\r\nhi"), "\r\n") {
				name, _, _ := strings.Cut(line, ":")
				if !strings.HasPrefix(name, "X-") && name != "Connection" || line == "Connection: TE, close" {
					t.Errorf("added %q", line)
				}
			}
		})
	}
}
