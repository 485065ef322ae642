package mesh

import (
	"encoding/binary"
	"encoding/json"
	"io"
	"net/http"
	"strings"
)

// Calls of gRPC have one message each way, of text: "grpc://" in a Request's URL asks for one. The response's Header has the trailers
// too, grpc-status among them, and its Body is the message alone.
const (
	grpcScheme = "grpc://"
	grpcType   = "application/grpc"
)

// newTransport2 is a program's client of HTTP/2 without TLS.
func newTransport2(dial dialFunc) *http.Transport {
	t := newTransport(dial)
	t.Protocols = new(http.Protocols)
	t.Protocols.SetUnencryptedHTTP2(true)
	return t
}

// asCall makes the request of a call.
func (r Request) asCall() Request {
	r.Header = r.Header.Clone()
	if r.Header == nil {
		r.Header = http.Header{}
	}
	r.Header.Set("Content-Type", grpcType)
	r.Header.Set("Te", "trailers")
	r.URL = "http://" + strings.TrimPrefix(r.URL, grpcScheme)
	r.Body = framed(r.Body)
	return r
}

// framed is a message as gRPC over HTTP/2 frames it: not compressed, its length, itself.
func framed(message string) string {
	return string(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message)))) + message
}

// unframed is the first message of a body; empty if there is no whole one.
func unframed(body string) string {
	if len(body) < 5 {
		return ""
	}
	n := binary.BigEndian.Uint32([]byte(body[1:5]))
	if uint64(len(body)-5) < uint64(n) {
		return ""
	}
	return body[5 : 5+n]
}

// called turns the response to a call into what Request promises.
func (r *Response) called(trailers http.Header) {
	for name, values := range trailers {
		r.Header[name] = values
	}
	r.Body = unframed(r.Body)
}

// echoCall answers a call with what it was asked, as echo does. Metadata change that: grpc-answer sets the status, fail with key
// gives it to the first calls of the key only.
func (p *process) echoCall(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	status := r.Header.Get("Grpc-Answer")
	if first := r.Header.Get("Fail"); status == "" || first != "" && !p.fails(r.Header.Get("Key"), first) {
		status = "0"
	}
	w.Header().Set("Content-Type", grpcType)
	w.Header().Set("Trailer", "Grpc-Status")
	defer w.Header().Set("Grpc-Status", status)
	if status != "0" {
		return
	}
	answer, err := json.Marshal(p.asked(r, string(body)))
	if err == nil {
		_, _ = io.WriteString(w, framed(string(answer))) // the client may be gone
	}
}

// asked describes the request for the answer of echo. The body of a call is its message.
func (p *process) asked(r *http.Request, body string) Echo {
	if r.Header.Get("Content-Type") == grpcType {
		body = unframed(body)
	}
	e := Echo{Pod: p.pod.Name, Method: r.Method, Path: r.URL.RequestURI(), Host: r.Host, Body: body, Header: map[string]string{}}
	for k, v := range r.Header {
		e.Header[strings.ToLower(k)] = strings.Join(v, ", ")
	}
	return e
}
