package conformance

import (
	"strings"
	"testing"
)

const (
	post     = "POST /p HTTP/1.1\r\nHost: a\r\n"
	smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
)

// refused are conversations whose first bytes are answered with the status and end the connection; nothing reaches the backend.
func refused(status string, cases map[string]string) (all []talk) {
	for name, send := range cases {
		all = append(all, talk{name: name, send: send, gets: status + " closed"})
	}
	return all
}

// TestContentLength: RFC 9110 section 8.6, RFC 9112 section 6.3.
func TestContentLength(t *testing.T) {
	talks := refused("400", map[string]string{
		"two that differ":               post + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!" + smuggled,
		"two that differ, first zero":   post + "Content-Length: 0\r\nContent-Length: 35\r\n\r\n" + smuggled,
		"two that differ, second zero":  post + "Content-Length: 35\r\nContent-Length: 0\r\n\r\n" + smuggled,
		"two alike":                     post + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
		"two alike in other case":       post + "Content-Length: 5\r\ncontent-length: 5\r\n\r\nhello",
		"list of two alike":             post + "Content-Length: 5, 5\r\n\r\nhello",
		"list of two that differ":       post + "Content-Length: 5, 6\r\n\r\nhello!",
		"list with an empty element":    post + "Content-Length: 5,\r\n\r\nhello",
		"list that starts empty":        post + "Content-Length: ,5\r\n\r\nhello",
		"plus sign":                     post + "Content-Length: +5\r\n\r\nhello",
		"minus sign":                    post + "Content-Length: -5\r\n\r\nhello",
		"minus zero":                    post + "Content-Length: -0\r\n\r\n",
		"hexadecimal":                   post + "Content-Length: 0x5\r\n\r\nhello",
		"hexadecimal digit":             post + "Content-Length: 5a\r\n\r\nhello",
		"octal prefix":                  post + "Content-Length: 0o5\r\n\r\nhello",
		"underscore":                    post + "Content-Length: 1_0\r\n\r\nhellohello",
		"decimal point":                 post + "Content-Length: 5.0\r\n\r\nhello",
		"exponent":                      post + "Content-Length: 5e0\r\n\r\nhello",
		"inner space":                   post + "Content-Length: 5 0\r\n\r\nhello",
		"trailing word":                 post + "Content-Length: 5 bytes\r\n\r\nhello",
		"quotes":                        post + "Content-Length: \"5\"\r\n\r\nhello",
		"empty":                         post + "Content-Length: \r\n\r\nhello",
		"letters":                       post + "Content-Length: five\r\n\r\nhello",
		"beyond 63 bits":                post + "Content-Length: 9223372036854775808\r\n\r\nhello",
		"beyond 64 bits":                post + "Content-Length: 18446744073709551621\r\n\r\nhello",
		"beyond everything":             post + "Content-Length: 99999999999999999999999999\r\n\r\nhello",
		"full-width digit":              post + "Content-Length: \xef\xbc\x95\r\n\r\nhello",
		"vertical tab before":           post + "Content-Length: \v5\r\n\r\nhello",
		"form feed behind":              post + "Content-Length: 5\f\r\n\r\nhello",
		"NUL behind":                    post + "Content-Length: 5\x00\r\n\r\nhello",
		"semicolon":                     post + "Content-Length: 5;q=1\r\n\r\nhello",
		"space before the colon":        post + "Content-Length : 5\r\n\r\nhello",
		"tab before the colon":          post + "Content-Length\t: 5\r\n\r\nhello",
		"NUL before the colon":          post + "Content-Length\x00: 5\r\n\r\nhello",
		"folded":                        post + "Content-Length:\r\n 5\r\n\r\nhello",
		"behind a bare CR":              post + "X: y\rContent-Length: 35\r\n\r\n" + smuggled,
		"behind a bare LF":              post + "X: y\nContent-Length: 35\r\n\r\n" + smuggled,
		"on the line after a bare CRCR": post + "X: y\r\rContent-Length: 35\r\n\r\n" + smuggled,
	})
	talks = append(talks,
		talk{"zero", post + "Content-Length: 0\r\n\r\n", "200 open", []string{"POST /p a 0"}},
		talk{"zero, then another request", post + "Content-Length: 0\r\n\r\n" + smuggled, "200 200 open", []string{"POST /p a 0", "GET /smuggled a -"}},
		talk{"leading zeros", post + "Content-Length: 005\r\n\r\nhello", "200 open", []string{"POST /p a 5 hello"}},
		talk{"spaces and tabs around", post + "Content-Length: \t 5 \t\r\n\r\nhello", "200 open", []string{"POST /p a 5 hello"}},
		talk{"no space", post + "Content-Length:5\r\n\r\nhello", "200 open", []string{"POST /p a 5 hello"}},
		talk{"any case", post + "cOnTeNt-LeNgTh: 5\r\n\r\nhello", "200 open", []string{"POST /p a 5 hello"}},
		talk{"none", post + "\r\n", "200 open", []string{"POST /p a 0"}},
		talk{"none, then another request", post + "\r\n" + smuggled, "200 200 open", []string{"POST /p a 0", "GET /smuggled a -"}},
		talk{"on GET", "GET /g HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", "200 open", []string{"GET /g a 5 hello"}},
		talk{"on GET, body like a request", "GET /g HTTP/1.1\r\nHost: a\r\nContent-Length: 35\r\n\r\n" + smuggled, "200 open", []string{"GET /g a 35 " + smuggled}},
		talk{"on DELETE", "DELETE /d HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", "200 open", []string{"DELETE /d a 5 hello"}},
		talk{"on HEAD", "HEAD /h HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", "200 open", []string{"HEAD /h a 5 hello"}},
		talk{"on OPTIONS", "OPTIONS /o HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", "200 open", []string{"OPTIONS /o a 5 hello"}},
		talk{"body too short", post + "Content-Length: 9\r\n\r\nhello", "waits", nil},
		talk{"listed by Connection", post + "Connection: Content-Length\r\nContent-Length: 35\r\n\r\n" + smuggled, "200 open", []string{"POST /p a 35 " + smuggled}},
		talk{"a name that resembles it", post + "Content_Length: 38\r\n\r\n" + smuggled, "200 200 open", []string{"POST /p a 0", "GET /smuggled a -"}},
	)
	playAll(t, talks)
}

// TestTransferEncoding: RFC 9112 sections 6.1 and 6.3. What is not plainly chunked is refused.
func TestTransferEncoding(t *testing.T) {
	const chunks = "5\r\nhello\r\n0\r\n\r\n"
	talks := refused("400", map[string]string{
		"with Content-Length (CL.TE)":         post + "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
		"before Content-Length (TE.CL)":       post + "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\n",
		"with Content-Length zero":            post + "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n" + chunks,
		"listed by Connection, with a length": post + "Connection: Transfer-Encoding\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks,
		"twice":                               post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks,
		"twice, second identity":              post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n" + chunks,
		"twice, first identity":               post + "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks,
		"twice, second unknown":               post + "Transfer-Encoding: chunked\r\nTransfer-encoding: cow\r\n\r\n" + chunks,
		"chunked twice in a list":             post + "Transfer-Encoding: chunked, chunked\r\n\r\n" + chunks,
		"chunked not last":                    post + "Transfer-Encoding: chunked, gzip\r\n\r\n" + chunks,
		"chunked, identity":                   post + "Transfer-Encoding: chunked, identity\r\n\r\n" + chunks,
		"empty":                               post + "Transfer-Encoding: \r\n\r\n" + chunks,
		"empty first element":                 post + "Transfer-Encoding: , chunked\r\n\r\n" + chunks,
		"empty last element":                  post + "Transfer-Encoding: chunked,\r\n\r\n" + chunks,
		"quoted":                              post + "Transfer-Encoding: \"chunked\"\r\n\r\n" + chunks,
		"single quotes and comma":             post + "Transfer-Encoding: 'chunked',\r\n\r\n" + chunks,
		"with a parameter":                    post + "Transfer-Encoding: chunked;q=1\r\n\r\n" + chunks,
		"with an empty parameter":             post + "Transfer-Encoding: chunked;\r\n\r\n" + chunks,
		"two words":                           post + "Transfer-Encoding: chunked foo\r\n\r\n" + chunks,
		"vertical tab before":                 post + "Transfer-Encoding: \vchunked\r\n\r\n" + chunks,
		"vertical tab behind":                 post + "Transfer-Encoding: chunked\v\r\n\r\n" + chunks,
		"form feed behind":                    post + "Transfer-Encoding: chunked\f\r\n\r\n" + chunks,
		"NUL behind":                          post + "Transfer-Encoding: chunked\x00\r\n\r\n" + chunks,
		"NUL before":                          post + "Transfer-Encoding: \x00chunked\r\n\r\n" + chunks,
		"high byte before":                    post + "Transfer-Encoding: \xffchunked\r\n\r\n" + chunks,
		"no-break space before":               post + "Transfer-Encoding: \xa0chunked\r\n\r\n" + chunks,
		"Kelvin sign":                         post + "Transfer-Encoding: chun\xe2\x84\xaaed\r\n\r\n" + chunks,
		"bare CR before":                      post + "Transfer-Encoding:\rchunked\r\n\r\n" + chunks,
		"bare CR behind":                      post + "Transfer-Encoding: chunked\r\r\n\r\n" + chunks,
		"bare LF before":                      post + "Transfer-Encoding:\nchunked\r\n\r\n" + chunks,
		"bare LF behind":                      post + "Transfer-Encoding: chunked\n\r\n" + chunks,
		"folded":                              post + "Transfer-Encoding:\r\n chunked\r\n\r\n" + chunks,
		"folded by a tab":                     post + "Transfer-Encoding:\r\n\tchunked\r\n\r\n" + chunks,
		"behind a folded line":                post + "X: y\r\n Transfer-Encoding: chunked\r\n\r\n" + chunks,
		"behind a bare CR":                    post + "X: y\rTransfer-Encoding: chunked\r\n\r\n" + chunks,
		"behind a bare LF":                    post + "X: y\nTransfer-Encoding: chunked\r\n\r\n" + chunks,
		"space before the name":               post + " Transfer-Encoding: chunked\r\n\r\n" + chunks,
		"space before the colon":              post + "Transfer-Encoding : chunked\r\n\r\n" + chunks,
		"tab before the colon":                post + "Transfer-Encoding\t: chunked\r\n\r\n" + chunks,
		"CR before the colon":                 post + "Transfer-Encoding\r: chunked\r\n\r\n" + chunks,
		"NUL in the name":                     post + "Transfer-\x00Encoding: chunked\r\n\r\n" + chunks,
		"high byte in the name":               post + "Transfer-Encoding\xff: chunked\r\n\r\n" + chunks,
		"identity":                            post + "Transfer-Encoding: identity\r\n\r\n",
		"unknown":                             post + "Transfer-Encoding: xchunked\r\n\r\n" + chunks,
		"chunk":                               post + "Transfer-Encoding: chunk\r\n\r\n" + chunks,
		"gzip":                                post + "Transfer-Encoding: gzip\r\n\r\n" + chunks,
		"chunked between others":              post + "Transfer-Encoding: gzip, chunked, br\r\n\r\n" + chunks,
		"in HTTP/1.0":                         "POST /p HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks,
		"in HTTP/1.0, kept alive":             "POST /p HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks,
		"in HTTP/1.0 with a length":           "POST /p HTTP/1.0\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks,
	})
	talks = append(talks, refused("501", map[string]string{
		"gzip, chunked":              post + "Transfer-Encoding: gzip, chunked\r\n\r\n" + chunks,
		"identity, chunked":          post + "Transfer-Encoding: identity, chunked\r\n\r\n" + chunks,
		"a word that holds chunked":  post + "Transfer-Encoding: xchunked, chunked\r\n\r\n" + chunks,
		"two unknown before chunked": post + "Transfer-Encoding: a,\tb ,chunked\r\n\r\n" + chunks,
	})...)
	talks = append(talks,
		talk{"plain", post + "Transfer-Encoding: chunked\r\n\r\n" + chunks, "200 open", []string{"POST /p a chunked hello"}},
		talk{"any case", post + "TRANSFER-encoding: ChUnKeD\r\n\r\n" + chunks, "200 open", []string{"POST /p a chunked hello"}},
		talk{"white space around", post + "Transfer-Encoding: \t chunked \t\r\n\r\n" + chunks, "200 open", []string{"POST /p a chunked hello"}},
		talk{"on GET", "GET /g HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks, "200 open", []string{"GET /g a chunked hello"}},
		talk{"listed by Connection", post + "Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + smuggled, "200 200 open",
			[]string{"POST /p a chunked hello", "GET /smuggled a -"}},
		talk{"then another request", post + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled, "200 200 open",
			[]string{"POST /p a chunked", "GET /smuggled a -"}},
		talk{"a name that resembles it", post + "Transfer_Encoding: chunked\r\n\r\n" + smuggled, "200 200 open", []string{"POST /p a 0", "GET /smuggled a -"}},
	)
	playAll(t, talks)
}

// TestChunks: RFC 9112 section 7.1.
func TestChunks(t *testing.T) {
	const head = post + "Transfer-Encoding: chunked\r\n\r\n"
	talks := refused("400", map[string]string{
		"size empty":                      head + "\r\nhello\r\n0\r\n\r\n",
		"size with 0x":                    head + "0x5\r\nhello\r\n0\r\n\r\n",
		"size with plus":                  head + "+5\r\nhello\r\n0\r\n\r\n",
		"size with minus":                 head + "-5\r\nhello\r\n0\r\n\r\n",
		"size with space before":          head + " 5\r\nhello\r\n0\r\n\r\n",
		"size with space behind":          head + "5 \r\nhello\r\n0\r\n\r\n",
		"size with tab behind":            head + "5\t\r\nhello\r\n0\r\n\r\n",
		"size with underscore":            head + "0_5\r\nhello\r\n0\r\n\r\n",
		"size with letter":                head + "5g\r\nhello\r\n0\r\n\r\n",
		"size with comma":                 head + "5,5\r\nhello\r\n0\r\n\r\n",
		"size of 17 digits":               head + "00000000000000005\r\nhello\r\n0\r\n\r\n",
		"size beyond 64 bits":             head + "10000000000000005\r\nhello\r\n0\r\n\r\n",
		"size of 64 bits":                 head + "ffffffffffffffff\r\nhello\r\n0\r\n\r\n",
		"size beyond 63 bits":             head + "8000000000000005\r\nhello\r\n0\r\n\r\n",
		"size with NUL":                   head + "5\x00\r\nhello\r\n0\r\n\r\n",
		"size in full-width digits":       head + "\xef\xbc\x95\r\nhello\r\n0\r\n\r\n",
		"line ends in LF":                 head + "5\nhello\r\n0\r\n\r\n",
		"line ends in CR":                 head + "5\rhello\r\n0\r\n\r\n",
		"line with bare CR in extension":  head + "5;a\rb\r\nhello\r\n0\r\n\r\n",
		"line with LF in extension":       head + "5;a\n1\r\nhello\r\n0\r\n\r\n",
		"line with NUL in extension":      head + "5;a\x00\r\nhello\r\n0\r\n\r\n",
		"line with CRLF in quotes":        head + "5;a=\"\r\n\"\r\nhello\r\n0\r\n\r\n",
		"line with word":                  head + "5 a=b\r\nhello\r\n0\r\n\r\n",
		"extension empty":                 head + "5;\r\nhello\r\n0\r\n\r\n",
		"extension empty, then one":       head + "5;;a\r\nhello\r\n0\r\n\r\n",
		"extension of white space":        head + "5; \r\nhello\r\n0\r\n\r\n",
		"extension without name":          head + "5;=b\r\nhello\r\n0\r\n\r\n",
		"extension without value":         head + "5;a=\r\nhello\r\n0\r\n\r\n",
		"extension of two words":          head + "5;a=b c\r\nhello\r\n0\r\n\r\n",
		"extension with space behind":     head + "5;a=b \r\nhello\r\n0\r\n\r\n",
		"extension with open quote":       head + "5;a=\"b\r\nhello\r\n0\r\n\r\n",
		"extension with escaped quote":    head + "5;a=\"b\\\"\r\nhello\r\n0\r\n\r\n",
		"extension behind quotes":         head + "5;a=\"b\"c\r\nhello\r\n0\r\n\r\n",
		"extension name in quotes":        head + "5;\"a\"\r\nhello\r\n0\r\n\r\n",
		"extension with delimiter":        head + "5;a=b(c)\r\nhello\r\n0\r\n\r\n",
		"last chunk's extension empty":    head + "5\r\nhello\r\n0;\r\n\r\n",
		"data without CRLF":               head + "5\r\nhello0\r\n\r\n" + smuggled,
		"data ends in LF":                 head + "5\r\nhello\n0\r\n\r\n",
		"data ends in CR":                 head + "5\r\nhello\r0\r\n\r\n",
		"data ends in CRCR":               head + "5\r\nhello\r\r0\r\n\r\n",
		"data longer than its size":       head + "4\r\nhello\r\n0\r\n\r\n",
		"data shorter than its size":      head + "6\r\nhello\r\n0\r\n\r\n",
		"data with an empty line behind":  head + "5\r\nhello\r\n\r\n0\r\n\r\n",
		"last chunk ends in LF":           head + "5\r\nhello\r\n0\n\r\n",
		"last chunk ends in LF, both":     head + "5\r\nhello\r\n0\n\n",
		"end is LF":                       head + "5\r\nhello\r\n0\r\n\n",
		"end is CR and a letter":          head + "5\r\nhello\r\n0\r\n\rGET",
		"trailer without colon":           head + "0\r\nT\r\n\r\n",
		"trailer with space before colon": head + "0\r\nT : v\r\n\r\n",
		"trailer folded":                  head + "0\r\nT: v\r\n w\r\n\r\n",
		"trailer ends in LF":              head + "0\r\nT: v\n\r\n",
		"trailer with NUL":                head + "0\r\nT: \x00\r\n\r\n",
		"trailer with bare CR":            head + "0\r\nT: a\rb\r\n\r\n",
		"trailer that is a request":       head + "0\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
	})
	talks = append(talks, refused("413", map[string]string{
		"extension that never ends":  head + "5;" + strings.Repeat("a", 20<<10),
		"extensions of small chunks": head + strings.Repeat("1;"+strings.Repeat("a", 1000)+"\r\nx\r\n", 40),
	})...)
	talks = append(talks, refused("431", map[string]string{
		"trailers that never end": head + "0\r\nT: " + strings.Repeat("a", 20<<10),
		"trailers too many":       head + "0\r\n" + strings.Repeat("T: v\r\n", 101) + "\r\n",
	})...)
	talks = append(talks,
		talk{"upper and lower case digits", head + "a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", "200 open", []string{"POST /p a chunked 01234567890123456789"}},
		talk{"leading zeros", head + "0000000000000005\r\nhello\r\n0000\r\n\r\n", "200 open", []string{"POST /p a chunked hello"}},
		talk{"extension", head + "5;a=b\r\nhello\r\n0;c\r\n\r\n", "200 open", []string{"POST /p a chunked hello"}},
		talk{"quoted extension", head + "5;a=\"b;c\"\r\nhello\r\n0\r\n\r\n", "200 open", []string{"POST /p a chunked hello"}},
		talk{"extensions, one with escapes", head + "5;a;b=\"\\\"\\\\;\";c=d\r\nhello\r\n0\r\n\r\n", "200 open", []string{"POST /p a chunked hello"}},
		talk{"extension with white space", head + "5 ; a = b\r\nhello\r\n0\r\n\r\n", "200 open", []string{"POST /p a chunked hello"}},
		talk{"trailer", head + "5\r\nhello\r\n0\r\nT: v\r\n\r\n", "200 open", []string{"POST /p a chunked hello +T=v"}},
		talk{"trailers that would frame", head + "5\r\nhello\r\n0\r\nContent-Length: 3\r\nTransfer-Encoding: gzip\r\nHost: b\r\nConnection: close\r\nT: v\r\n\r\n",
			"200 open", []string{"POST /p a chunked hello +T=v"}},
		talk{"cut off in a size", head + "5", "waits", nil},
		talk{"cut off in data", head + "5\r\nhel", "waits", nil},
		talk{"cut off before the last chunk", head + "5\r\nhello\r\n", "waits", nil},
		talk{"cut off in the end", head + "5\r\nhello\r\n0\r\n", "waits", nil},
		talk{"cut off in trailers", head + "5\r\nhello\r\n0\r\nT: v\r\n", "waits", nil},
		talk{"body like a request", head + "23\r\n" + smuggled + "\r\n0\r\n\r\n", "200 open", []string{"POST /p a chunked " + smuggled}},
	)
	playAll(t, talks)
}
