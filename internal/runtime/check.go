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
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/weftmesh/weft/internal/runtime/demand"
	"github.com/weftmesh/weft/internal/runtime/podhost"
)

// check runs a probe's handler once, as the kubelet would, from inside the pod and past the sidecar.
func (s *process) check(ctx context.Context, h corev1.ProbeHandler) error {
	switch {
	case h.HTTPGet != nil:
		return s.checkHTTP(ctx, h.HTTPGet)
	case h.TCPSocket != nil:
		port, err := demand.ResolvePort(h.TCPSocket.Port, s.c.Ports)
		if err != nil {
			return err
		}
		c, err := s.p.rt.host.Dial(ctx, s.p.Key.String(), s.p.target(port))
		if err == nil {
			c.Close()
		}
		return err
	default:
		return s.checkExec(ctx, h.Exec.Command)
	}
}

func (s *process) checkHTTP(ctx context.Context, h *corev1.HTTPGetAction) error {
	port, err := demand.ResolvePort(h.Port, s.c.Ports)
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
			return s.p.rt.host.Dial(ctx, s.p.Key.String(), to)
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
	spec, err := s.p.appSpec(command, s.c.Dir, env)
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
	return p.rt.host.Run(ctx, spec, stdio.In, stdio.Out, stdio.Err)
}
