package mesh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"
)

// Request is what a client sends. From is a workload (whose sidecar captures the connection) or Outside. Header "Host" sets the
// authority, "Connection: close" has the request go on a connection of its own. "grpc://HOST:PORT/SERVICE/METHOD" is a call of gRPC with Body as its message. Redirects are not followed. The client outside keeps cookies, as a browser does.
type Request struct {
	From, Method, URL string
	Header            http.Header
	Body              string
}

// Response is what came of a Request. When Err is set, there was no complete response.
type Response struct {
	Status   int
	Header   http.Header
	Body     string
	ServedBy string // the pod whose program answered; empty when a proxy did
	Took     time.Duration
	Err      error
}

// Outside is the client that is not in the mesh.
const Outside = "outside"

// Do sends a request and reads the whole response. Connections are kept for later requests of the same client.
func (m *Mesh) Do(ctx context.Context, r Request) *Response {
	start := time.Now()
	resp, err := m.do(ctx, r)
	if err != nil {
		resp = &Response{Err: err}
	}
	resp.Took = time.Since(start)
	return resp
}

func (m *Mesh) do(ctx context.Context, r Request) (*Response, error) {
	call := strings.HasPrefix(r.URL, grpcScheme)
	if call {
		r = r.asCall()
	}
	transport, err := m.transport(r.From, call)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, r.Method, r.URL, strings.NewReader(r.Body))
	if err != nil {
		return nil, err
	}
	for k, v := range r.Header {
		req.Header[http.CanonicalHeaderKey(k)] = v
	}
	req.Close = r.Header.Get("Connection") == "close"
	if r.From == Outside {
		for _, c := range m.jar.Cookies(req.URL) {
			req.AddCookie(c)
		}
	}
	if h := r.Header.Get("Host"); h != "" {
		req.Host = h
		req.Header.Del("Host")
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("response %d: %w", resp.StatusCode, err)
	}
	if r.From == Outside {
		m.jar.SetCookies(req.URL, resp.Cookies())
	}
	out := &Response{Status: resp.StatusCode, Header: resp.Header, Body: string(body), ServedBy: resp.Header.Get(ServedBy)}
	if call {
		out.called(resp.Trailer)
	}
	return out, nil
}

func (m *Mesh) transport(from string, call bool) (*http.Transport, error) {
	if from == Outside {
		if call {
			return m.outside2, nil
		}
		return m.outside, nil
	}
	p, err := m.Pod(from)
	if err != nil {
		return nil, err
	}
	if call {
		return p.client2, nil
	}
	return p.client, nil
}

type dialFunc = func(context.Context, string, string) (net.Conn, error)

// newTransport is a program's client of HTTP/1.
func newTransport(dial dialFunc) *http.Transport {
	return &http.Transport{DialContext: dial, MaxIdleConnsPerHost: 64, IdleConnTimeout: time.Minute, DisableCompression: true}
}

// Dial opens a connection as a program of the workload would, or as a client outside.
func (m *Mesh) Dial(ctx context.Context, from, address string) (net.Conn, error) {
	if from == Outside {
		return m.dialOutside(ctx, "tcp", address)
	}
	p, err := m.Pod(from)
	if err != nil {
		return nil, err
	}
	return p.dial(ctx, "tcp", address)
}

// dialOutside resolves workloads, and "gateway", to their pods' addresses. Clients of the gateway come through its Service, as its port 80 shows.
func (m *Mesh) dialOutside(ctx context.Context, _, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	n, err := net.LookupPort("tcp", port)
	if err != nil {
		return nil, err
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		if host == "gateway" {
			if host = "istio-ingressgateway"; n == 80 {
				n = 8080 // see ingressGateway
			}
		}
		p, err := m.Pod(host)
		if err != nil {
			return nil, err
		}
		ip = p.IP
	}
	return m.client.Dial(ctx, netip.AddrPortFrom(ip, uint16(n)))
}

// silence is how long Talk waits for more.
const silence = 2 * time.Second

// Talk connects, sends text, and reads until the other side ends or says nothing for two seconds. It returns what was read; the
// error says why a connection was not made or broke.
func (m *Mesh) Talk(ctx context.Context, from, address, text string) (string, error) {
	c, err := m.Dial(ctx, from, address)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if _, err := io.WriteString(c, text); err != nil {
		return "", err
	}
	var received strings.Builder
	buf := make([]byte, 4096)
	for {
		if err := c.SetReadDeadline(time.Now().Add(silence)); err != nil {
			return "", err
		}
		n, err := c.Read(buf)
		received.Write(buf[:n])
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, io.EOF):
			return received.String(), nil
		default:
			return received.String(), err
		}
	}
}
