package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// ErrNotRunning is returned when nobody listens on the mesh's socket.
var ErrNotRunning = errors.New("no mesh is running")

// Client speaks the API. It is safe for concurrent use.
type Client struct {
	// Patience may be changed before the first request.
	Patience Patience

	socket string
	http   *http.Client
}

// NewClient gives a client of the mesh that listens on the unix socket.
func NewClient(socket string) *Client {
	c := &Client{socket: socket, Patience: DefaultPatience}
	c.http = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dial(ctx) },
	}}
	return c
}

// Close releases idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

func (c *Client) dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.socket)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotRunning, err)
	}
	return conn, nil
}

// Status gives the state of the mesh.
func (c *Client) Status(ctx context.Context) (s Status, err error) {
	return s, c.get(ctx, "/v1/status", &s)
}

// Graph gives the service graph over the last window.
func (c *Client) Graph(ctx context.Context, window time.Duration) (g Graph, err error) {
	return g, c.get(ctx, "/v1/graph?window="+window.String(), &g)
}

// Objects lists the accepted objects, and those that were refused, as far as they are selected.
func (c *Client) Objects(ctx context.Context, of Selection) (o []Object, err error) {
	at := "/v1/objects"
	if q := of.query().Encode(); q != "" {
		at += "?" + q
	}
	return o, c.get(ctx, at, &o)
}

// Apply creates or changes objects; all or none.
func (c *Client) Apply(ctx context.Context, req ChangeRequest) (r ChangeReply, err error) {
	return r, c.post(ctx, "/v1/apply", req, &r)
}

// Delete removes applied objects; all or none.
func (c *Client) Delete(ctx context.Context, req ChangeRequest) (r ChangeReply, err error) {
	return r, c.post(ctx, "/v1/delete", req, &r)
}

// Explain says what would happen to a request.
func (c *Client) Explain(ctx context.Context, req ExplainRequest) (r ExplainReply, err error) {
	return r, c.post(ctx, "/v1/explain", req, &r)
}

// Diff says which requests would behave differently with objects applied or deleted.
func (c *Client) Diff(ctx context.Context, req DiffRequest) (r DiffReply, err error) {
	return r, c.post(ctx, "/v1/diff", req, &r)
}

// Join gives the bootstrap file of a proxy.
func (c *Client) Join(ctx context.Context, req JoinRequest) (r JoinReply, err error) {
	return r, c.post(ctx, "/v1/join", req, &r)
}

// AddProgram runs a program in the mesh, or replaces the one of the same name.
func (c *Client) AddProgram(ctx context.Context, p Program) error {
	return c.post(ctx, "/v1/programs", p, nil)
}

// RemoveProgram stops and forgets a program.
func (c *Client) RemoveProgram(ctx context.Context, namespace, name string) error {
	return c.do(ctx, http.MethodDelete, "/v1/programs/"+url.PathEscape(namespace)+"/"+url.PathEscape(name), nil, nil)
}

// Restart replaces the pods of a workload one by one.
func (c *Client) Restart(ctx context.Context, namespace, name string) error {
	return c.post(ctx, "/v1/restart/"+url.PathEscape(namespace)+"/"+url.PathEscape(name), nil, nil)
}

// Upgrade lets the proxy program on disk take over from a workload's running proxies, one after the other.
func (c *Client) Upgrade(ctx context.Context, namespace, name string) (u []Upgraded, err error) {
	return u, c.post(ctx, "/v1/upgrade/"+url.PathEscape(namespace)+"/"+url.PathEscape(name), nil, &u)
}

// Down asks the mesh to stop.
func (c *Client) Down(ctx context.Context) error { return c.post(ctx, "/v1/down", nil, nil) }

// Control stops, starts or restarts the embedded control plane.
func (c *Client) Control(ctx context.Context, action string) error {
	return c.post(ctx, "/v1/control", ControlAction{action}, nil)
}

// Logs calls line for each log line until there are no more, the context ends, or line fails.
func (c *Client) Logs(ctx context.Context, q LogQuery, line func(LogLine) error) error {
	v := url.Values{"namespace": {q.Namespace}, "name": {q.Name}, "process": {q.Process}, "tail": {strconv.Itoa(q.Tail)}}
	if q.Follow {
		v.Set("follow", "true")
	}
	if !q.Since.IsZero() {
		v.Set("since", q.Since.Format(time.RFC3339Nano))
	}
	resp, err := c.send(ctx, http.MethodGet, "/v1/logs?"+v.Encode(), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	for dec := json.NewDecoder(resp.Body); ; {
		var l LogLine
		if err := dec.Decode(&l); errors.Is(err, io.EOF) || ctx.Err() != nil {
			return nil
		} else if err != nil {
			return fmt.Errorf("logs: %w", err)
		}
		if err := line(l); err != nil {
			return err
		}
	}
}

// Exec runs a command inside a pod and gives its exit code. Ending the context, or the connection, kills it.
func (c *Client) Exec(ctx context.Context, req ExecRequest, in io.Reader, out, errOut io.Writer) (int, error) {
	conn, err := c.dial(ctx)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	r, err := startExec(conn, req)
	if err != nil {
		return 0, err
	}
	if in != nil {
		go sendInput(conn, in) // ends with the connection, or with the input
	}
	for {
		kind, p, err := readFrame(r)
		if err != nil {
			return 0, fmt.Errorf("exec: the connection ended before the command: %w", err)
		}
		switch kind {
		case frameStdout:
			_, err = out.Write(p)
		case frameStderr:
			_, err = errOut.Write(p)
		case frameExit:
			return strconv.Atoi(string(p))
		case frameError:
			return 0, errors.New(string(p))
		}
		if err != nil {
			return 0, err
		}
	}
}

func startExec(conn net.Conn, req ExecRequest) (*bufio.Reader, error) {
	head, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}
	hr, err := http.NewRequest(http.MethodPost, "http://weft/v1/exec", nil)
	if err != nil {
		return nil, err
	}
	hr.Header.Set("Connection", "Upgrade")
	hr.Header.Set("Upgrade", execProtocol)
	hr.Header.Set(execHeader, string(head))
	if err := hr.Write(conn); err != nil {
		return nil, err
	}
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, hr)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		defer resp.Body.Close()
		return nil, readError(resp)
	}
	return r, nil
}

func sendInput(conn net.Conn, in io.Reader) {
	f := &frameWriter{w: conn}
	if _, err := io.Copy(f.stream(frameStdin), in); err == nil {
		_ = f.write(frameStdin, nil)
	}
}

func (c *Client) get(ctx context.Context, path string, out any) error {
	return c.do(ctx, http.MethodGet, path, nil, out)
}

func (c *Client) post(ctx context.Context, path string, in, out any) error {
	return c.do(ctx, http.MethodPost, path, in, out)
}

func (c *Client) do(ctx context.Context, method, path string, in, out any) error {
	resp, err := c.send(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		return err
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return fmt.Errorf("%s %s: answer: %w", method, path, err)
	}
	return nil
}

func (c *Client) send(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		raw, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(raw)
	}
	a := c.attend(ctx, changes(method, path))
	req, err := http.NewRequestWithContext(a.ctx, method, "http://weft"+path, body)
	if err != nil {
		a.cancel(nil)
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		defer a.cancel(nil)
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // the URL is ours and says nothing to the user
		}
		return nil, a.why(err, changes(method, path))
	}
	resp.Body = attendedBody{resp.Body, a}
	if resp.StatusCode >= 400 {
		defer resp.Body.Close()
		return nil, readError(resp)
	}
	return resp, nil
}

func readError(resp *http.Response) error {
	var e Error
	raw, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err := json.Unmarshal(raw, &e); err != nil || e.Message == "" {
		return fmt.Errorf("the mesh answered %s: %s", resp.Status, bytes.TrimSpace(raw))
	}
	switch resp.StatusCode {
	case http.StatusNotFound:
		return &NotFoundError{e.Message, e.Hint}
	case http.StatusBadRequest:
		return &InvalidError{e.Message, e.Hint}
	case http.StatusServiceUnavailable:
		return &UnavailableError{e.Message, e.Hint}
	}
	return errors.New(e.Message)
}

// Hint gives what the error says to do next, or "".
func Hint(err error) string {
	var (
		notFound    *NotFoundError
		invalid     *InvalidError
		unavailable *UnavailableError
	)
	switch {
	case errors.As(err, &notFound):
		return notFound.Hint
	case errors.As(err, &invalid):
		return invalid.Hint
	case errors.As(err, &unavailable):
		return unavailable.Hint
	}
	return ""
}
