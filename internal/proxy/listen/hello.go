package listen

import (
	"encoding/binary"
	"strings"
)

// Numbers of RFC 8446 (sections 4 and 5.1), RFC 6066 (server_name) and RFC 7301 (ALPN).
const (
	recordHandshake  = 22
	messageHello     = 1
	extensionName    = 0
	extensionALPN    = 16
	nameTypeHost     = 0
	recordHeader     = 5
	maxRecord        = 1<<14 + 256
	handshakeHeader  = 4
	helloFixed       = 2 + 32 // legacy_version, random
	maxALPNProtocols = 32
)

// classifyTLS joins the handshake message from its records and reads it once it is complete.
func classifyTLS(b []byte) (s Sniffed, sure bool) {
	var message []byte
	for rest := b; ; {
		if len(rest) < recordHeader {
			return s, !plausibleHeader(rest)
		}
		n := int(binary.BigEndian.Uint16(rest[3:5]))
		if !plausibleHeader(rest) || n == 0 || n > maxRecord {
			return s, true
		}
		record := rest[recordHeader:]
		if len(record) > n {
			record = record[:n]
		}
		if len(message) == 0 && len(b) >= recordHeader+n {
			message = record // the usual case: one record, no copy
		} else {
			message = append(message[:len(message):len(message)], record...)
		}
		if done, ok := wholeHello(message); !ok {
			return s, true
		} else if done != nil {
			return readHello(done), true
		}
		if len(b) >= maxHello {
			return s, true
		}
		if len(rest) <= recordHeader+n {
			return s, false
		}
		rest = rest[recordHeader+n:]
	}
}

// plausibleHeader checks a record header as far as it is there: type handshake, version 3.x.
func plausibleHeader(b []byte) bool {
	return (len(b) < 1 || b[0] == recordHandshake) && (len(b) < 2 || b[1] == 3) && (len(b) < 3 || b[2] <= 4)
}

// wholeHello gives the ClientHello's body once all of it is there; ok is false when it is something else.
func wholeHello(m []byte) (body []byte, ok bool) {
	if len(m) > 0 && m[0] != messageHello {
		return nil, false
	}
	if len(m) < handshakeHeader {
		return nil, true
	}
	n := int(m[1])<<16 | int(m[2])<<8 | int(m[3])
	if n > maxHello {
		return nil, false
	}
	if len(m) < handshakeHeader+n {
		return nil, true
	}
	return m[handshakeHeader : handshakeHeader+n], true
}

// reader takes length-prefixed fields off a message; bad is sticky.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if n > len(r.b) {
		r.bad, r.b = true, nil
		return nil
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) uint8() int {
	if v := r.take(1); v != nil {
		return int(v[0])
	}
	return 0
}

func (r *reader) uint16() int {
	if v := r.take(2); v != nil {
		return int(binary.BigEndian.Uint16(v))
	}
	return 0
}

func (r *reader) vector8() []byte  { return r.take(r.uint8()) }
func (r *reader) vector16() []byte { return r.take(r.uint16()) }

// readHello reads the two extensions that routing needs (RFC 8446 section 4.1.2). What is malformed beyond that is left to the
// handshake to refuse; a hello that cannot be read at all is still TLS, without a name.
func readHello(body []byte) Sniffed {
	s := Sniffed{Protocol: TLS}
	r := reader{b: body}
	r.take(helloFixed)
	r.vector8()  // legacy_session_id
	r.vector16() // cipher_suites
	r.vector8()  // legacy_compression_methods
	extensions := reader{b: r.vector16()}
	for len(extensions.b) > 0 && !extensions.bad && !r.bad {
		kind := extensions.uint16()
		data := reader{b: extensions.vector16()}
		switch kind {
		case extensionName:
			s.ServerName = readName(data)
		case extensionALPN:
			s.ALPN = readALPN(data)
		}
	}
	return s
}

func readName(r reader) string {
	list := reader{b: r.vector16()}
	for len(list.b) > 0 && !list.bad {
		kind, name := list.uint8(), list.vector16()
		if kind == nameTypeHost && !list.bad {
			return strings.ToLower(strings.TrimSuffix(string(name), "."))
		}
	}
	return ""
}

func readALPN(r reader) []string {
	var names []string
	list := reader{b: r.vector16()}
	for len(list.b) > 0 && !list.bad && len(names) < maxALPNProtocols {
		if name := list.vector8(); len(name) > 0 {
			names = append(names, string(name))
		}
	}
	return names
}
