package http1

import (
	"bytes"
	"strings"

	"github.com/weftmesh/weft/internal/proxy/message"
)

// framing is what the fields of one head say about the message's delimitation and its connection.
type framing struct {
	hosts, lengths, codings     int
	host, length, coding        string
	closes, keepAlive, upgrades bool
	upgrade                     string
	expect                      bool // 100-continue
	expectsMore                 bool // something else
}

// parseFields reads field lines up to the empty line that ends b. With mend, white space before a colon is left out, as RFC 9112
// section 5.1 demands of a proxy for responses; for requests the section demands an error.
func parseFields(b []byte, h *message.Header, f *framing, most int, mend bool) error {
	for {
		end := bytes.IndexByte(b, '\n')
		if end < 1 || b[end-1] != '\r' {
			return errBareLF
		}
		if end == 1 {
			return nil
		}
		line, whole := b[:end-1], b[:end+1]
		b = b[end+1:]
		name, value, err := cutField(line, mend)
		if err != nil {
			return err
		}
		if h.Len() >= most {
			return errFieldCount
		}
		if plain := len(name) + len(": ") + len(value); plain == len(line) && line[len(name)+1] == ' ' {
			h.AddLine(str(whole), name, value)
		} else {
			h.Add(name, value)
		}
		f.note(name, value)
	}
}

func cutField(line []byte, mend bool) (name, value string, err error) {
	i := 0
	for i < len(line) && message.TokenChars[line[i]] {
		i++
	}
	end := i
	for mend && end > 0 && i < len(line) && (line[i] == ' ' || line[i] == '\t') {
		i++
	}
	if end == 0 || i == len(line) || line[i] != ':' {
		if line[0] == ' ' || line[0] == '\t' {
			return "", "", errFold
		}
		return "", "", errFieldName
	}
	v := trimOWS(line[i+1:])
	if !message.ValidValue(v) {
		return "", "", errFieldValue
	}
	return str(line[:end]), str(v), nil
}

// note sorts by length first: most fields have none of these.
func (f *framing) note(name, value string) {
	switch len(name) {
	case len("Host"):
		if message.EqualFold(name, "Host") {
			f.hosts++
			f.host = value
		}
	case len("Expect"):
		if message.EqualFold(name, "Expect") {
			f.expectation(value)
		}
	case len("Upgrade"):
		if message.EqualFold(name, "Upgrade") && f.upgrade == "" {
			f.upgrade = value
		}
	case len("Connection"):
		if message.EqualFold(name, "Connection") {
			f.options(value)
		}
	case len("Content-Length"):
		if message.EqualFold(name, "Content-Length") {
			f.lengths++
			f.length = value
		}
	case len("Transfer-Encoding"):
		if message.EqualFold(name, "Transfer-Encoding") {
			f.codings++
			f.coding = value
		}
	}
}

func (f *framing) expectation(list string) {
	for list != "" {
		var member string
		member, list = cutElement(list)
		switch {
		case message.EqualFold(member, "100-continue"):
			f.expect = true
		case member != "":
			f.expectsMore = true
		}
	}
}

func (f *framing) options(value string) {
	for value != "" {
		var option string
		option, value = cutElement(value)
		switch {
		case message.EqualFold(option, "close"):
			f.closes = true
		case message.EqualFold(option, "keep-alive"):
			f.keepAlive = true
		case message.EqualFold(option, "upgrade"):
			f.upgrades = true
		}
	}
}

// cutElement takes the first element, which may be empty, off a comma-separated list.
func cutElement(list string) (element, rest string) {
	element, rest, _ = strings.Cut(list, ",")
	return str(trimOWS(raw(element))), rest
}

// persistent is RFC 9112 section 9.3.
func (f *framing) persistent(p message.Proto) bool {
	return !f.closes && (p == message.HTTP11 || f.keepAlive)
}

// body gives the framing that Transfer-Encoding and Content-Length declare, NoBody if neither is there. Where RFC 9112
// section 6.3 lets a recipient repair (both fields, repeated equal lengths), a proxy that repairs is one half of a smuggling
// attack: refused.
func (f *framing) body(p message.Proto) (message.Body, error) {
	switch {
	case f.codings > 0 && f.lengths > 0:
		return message.Body{}, errLengthCoding
	case f.codings > 0:
		if p == message.HTTP10 {
			return message.Body{}, errCoding10
		}
		if f.codings > 1 {
			return message.Body{}, errCoding
		}
		return message.Body{Kind: message.Chunked}, checkCoding(f.coding)
	case f.lengths > 1:
		return message.Body{}, errLengthTwice
	case f.lengths == 1:
		n, ok := message.ParseLength(f.length)
		if !ok {
			return message.Body{}, errLength
		}
		return message.Body{Kind: message.Sized, Length: n}, nil
	}
	return message.Body{}, nil
}

// checkCoding takes "chunked" alone. A message whose end cannot be told, because chunked is not last or is there twice, is 400
// (RFC 9112 section 6.3); an unknown coding within the chunks is 501 (section 6.1).
func checkCoding(value string) error {
	if message.EqualFold(value, "chunked") {
		return nil
	}
	for last := false; !last; {
		last = strings.IndexByte(value, ',') < 0
		var coding string
		coding, value = cutElement(value)
		if !message.IsToken(coding) || last != message.EqualFold(coding, "chunked") {
			return errCoding
		}
	}
	return errCodingUnknown
}
