package mesh

import (
	"io"
	"net"
	"net/http"
)

// forward connects to the request's authority. The bytes come after the answer to a CONNECT of HTTP/1, and else in the bodies.
func (p *process) forward(w http.ResponseWriter, r *http.Request) {
	if _, port, err := net.SplitHostPort(r.Host); err != nil || port == "1" || r.Method != http.MethodConnect && r.Method != http.MethodPost {
		http.Error(w, "forbidden", http.StatusForbidden)
		return
	}
	to, err := p.pod.dial(r.Context(), "tcp", r.Host)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer to.Close()
	rc := http.NewResponseController(w)
	if r.Method == http.MethodConnect && r.ProtoMajor == 1 {
		from, rest, err := rc.Hijack()
		if err != nil {
			return
		}
		defer from.Close()
		if _, err = io.WriteString(from, "HTTP/1.1 200 OK\r\n\r\n"); err == nil {
			p.between(to, rest, from)
		}
		return
	}
	if rc.EnableFullDuplex() != nil && r.ProtoMajor == 1 {
		return
	}
	w.WriteHeader(http.StatusOK)
	if rc.Flush() == nil {
		p.between(to, r.Body, flushed{w, rc})
	}
}

// between relays until the target has ended.
func (p *process) between(to net.Conn, from io.Reader, back io.Writer) {
	p.running.Go(func() { // ends with the client, which the server ends
		if _, err := io.Copy(to, from); err != nil {
			return
		}
		if c, ok := to.(interface{ CloseWrite() error }); ok {
			_ = c.CloseWrite() // the target may be gone
		}
	})
	_, _ = io.Copy(back, to)
}

// flushed writes at once.
type flushed struct {
	w  io.Writer
	rc *http.ResponseController
}

func (f flushed) Write(b []byte) (int, error) {
	n, err := f.w.Write(b)
	if err == nil {
		err = f.rc.Flush()
	}
	return n, err
}
