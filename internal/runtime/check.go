package runtime

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"

	corev1 "k8s.io/api/core/v1"

	"github.com/weftmesh/weft/internal/runtime/podhost"
)

// check runs a probe's handler once, as the kubelet would, from inside the pod and past the sidecar.
func (s *process) check(ctx context.Context, h corev1.ProbeHandler) error {
	switch {
	case h.HTTPGet != nil:
		return s.checkHTTP(ctx, h.HTTPGet)
	case h.TCPSocket != nil:
		port, err := resolvePort(h.TCPSocket.Port, s.c.ports)
		if err != nil {
			return err
		}
		c, err := s.p.rt.host.Dial(ctx, s.p.key.String(), s.p.target(port))
		if err == nil {
			c.Close()
		}
		return err
	default:
		return s.checkExec(ctx, h.Exec.Command)
	}
}

func (s *process) checkHTTP(ctx context.Context, h *corev1.HTTPGetAction) error {
	port, err := resolvePort(h.Port, s.c.ports)
	if err != nil {
		return err
	}
	to := s.p.target(port)
	if ip, err := netip.ParseAddr(h.Host); err == nil {
		to = netip.AddrPortFrom(ip, to.Port())
	}
	scheme := "http"
	if h.Scheme == corev1.URISchemeHTTPS {
		scheme = "https"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+net.JoinHostPort(to.Addr().String(), strconv.Itoa(int(port)))+"/"+strings.TrimPrefix(h.Path, "/"), nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "kube-probe/weft")
	for _, kv := range h.HTTPHeaders {
		if strings.EqualFold(kv.Name, "host") {
			req.Host = kv.Value
		}
		req.Header.Set(kv.Name, kv.Value)
	}
	tr := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return s.p.rt.host.Dial(ctx, s.p.key.String(), to)
		},
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // as the kubelet: the question is whether it answers
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, io.LimitReader(resp.Body, 10<<10))
	if resp.StatusCode < 200 || resp.StatusCode >= 400 {
		return fmt.Errorf("GET %s: %s", req.URL.Path, resp.Status)
	}
	return nil
}

func (s *process) checkExec(ctx context.Context, command []string) error {
	var out bytes.Buffer
	env := s.p.env(s.c)
	spec, err := s.p.appSpec(command, s.c.dir, env)
	if err != nil {
		return err
	}
	exit, err := s.p.exec(ctx, spec, Stdio{Out: &out, Err: &out})
	if err != nil {
		return err
	}
	if exit != (podhost.Exit{}) {
		return fmt.Errorf("%s: %s: %.200s", command[0], exit, strings.TrimSpace(out.String()))
	}
	return nil
}

// exec runs one process in the pod to its end; the context's end kills it.
func (p *pod) exec(ctx context.Context, spec podhost.Process, stdio Stdio) (podhost.Exit, error) {
	streams, err := newStreams(stdio)
	if err != nil {
		return podhost.Exit{}, err
	}
	r, err := p.rt.host.Start(ctx, spec, streams.files)
	streams.started()
	if err != nil {
		streams.wait()
		return podhost.Exit{}, err
	}
	select {
	case <-r.Done():
	case <-ctx.Done():
		r.Signal(syscall.SIGKILL)
		<-r.Done()
	}
	streams.wait()
	if ctx.Err() != nil {
		return r.Exit(), context.Cause(ctx)
	}
	return r.Exit(), nil
}

// streams joins readers and writers to the files that a process has. A stream that is a file is passed as it is.
type streams struct {
	files [3]*os.File
	ours  []*os.File   // the process's ends, closed once it has them
	in    *os.File     // our end of its input
	out   []chan error // one for each copy of output
}

func newStreams(stdio Stdio) (*streams, error) {
	s := &streams{}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	s.ours = append(s.ours, null)
	s.files = [3]*os.File{null, null, null}
	if f, ok := stdio.In.(*os.File); ok {
		s.files[0] = f
	} else if stdio.In != nil {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		s.files[0], s.ours, s.in = r, append(s.ours, r), w
		go func() { // ends when the process's input is closed and the reader gives once more, or ends
			io.Copy(w, stdio.In)
			w.Close()
		}()
	}
	for i, dst := range []io.Writer{stdio.Out, stdio.Err} {
		if f, ok := dst.(*os.File); ok {
			s.files[i+1] = f
			continue
		}
		if dst == nil {
			continue
		}
		if i == 1 && dst == stdio.Out {
			s.files[2] = s.files[1]
			continue
		}
		r, w, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		s.files[i+1], s.ours = w, append(s.ours, w)
		done := make(chan error, 1)
		s.out = append(s.out, done)
		go func() { // ends when no process holds the pipe
			_, err := io.Copy(dst, r)
			r.Close()
			done <- err
		}()
	}
	return s, nil
}

func (s *streams) started() {
	for _, f := range s.ours {
		f.Close()
	}
}

func (s *streams) wait() {
	for _, c := range s.out {
		<-c
	}
	if s.in != nil {
		s.in.Close()
	}
}
