// Websocket is an echo server, and a client that tries everything of the protocol against one:
//
//	websocket serve            prints its address, and serves until its standard input ends
//	websocket check URL        exits with 0 if all went well
//	websocket check-connect ADDRESS URL    the same through a forward proxy, by CONNECT
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/coder/websocket"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 1 && args[0] == "serve":
		return serve()
	case len(args) == 2 && args[0] == "check":
		return check(args[1], http.DefaultTransport.(*http.Transport).Clone())
	case len(args) == 3 && args[0] == "check-connect":
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: args[1]})
		return check(args[2], t)
	}
	return errors.New("usage: websocket serve | check URL | check-connect ADDRESS URL")
}

func serve() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	go func() {
		io.Copy(io.Discard, os.Stdin)
		l.Close()
	}()
	err = http.Serve(l, http.HandlerFunc(echo))
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

const largest = 4 << 20

// echo sends messages back, and closes as it is asked: "close 4001 because".
func echo(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"weft.b"}, CompressionMode: websocket.CompressionContextTakeover})
	if err != nil {
		return
	}
	defer c.CloseNow()
	c.SetReadLimit(largest + 1)
	for {
		kind, p, err := c.Read(r.Context())
		if err != nil {
			return
		}
		var code int
		if n, _ := fmt.Sscanf(string(p), "close %d", &code); n == 1 {
			c.Close(websocket.StatusCode(code), strings.TrimPrefix(string(p), fmt.Sprintf("close %d ", code)))
			return
		}
		if err := c.Write(r.Context(), kind, p); err != nil {
			return
		}
	}
}

// check runs each trial on a connection of its own.
func check(at string, t *http.Transport) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, trial := range []struct {
		name string
		run  func(context.Context, *websocket.Conn) error
	}{{"messages", messages}, {"fragments", fragments}, {"pings", pings}, {"close by server", closeByServer}, {"close by client", closeByClient}} {
		for _, compress := range []websocket.CompressionMode{websocket.CompressionDisabled, websocket.CompressionContextTakeover} {
			c, _, err := websocket.Dial(ctx, at, &websocket.DialOptions{HTTPClient: &http.Client{Transport: t},
				Subprotocols: []string{"weft.a", "weft.b"}, CompressionMode: compress})
			if err != nil {
				return fmt.Errorf("%s: %w", trial.name, err)
			}
			c.SetReadLimit(largest + 1)
			if got := c.Subprotocol(); got != "weft.b" {
				return fmt.Errorf("subprotocol %q", got)
			}
			if err := trial.run(ctx, c); err != nil {
				return fmt.Errorf("%s: %w", trial.name, err)
			}
			c.CloseNow()
		}
	}
	return nil
}

func messages(ctx context.Context, c *websocket.Conn) error {
	for _, size := range []int{0, 1, 125, 126, 127, 65535, 65536, 1 << 20, largest} {
		for _, kind := range []websocket.MessageType{websocket.MessageText, websocket.MessageBinary} {
			sent := bytes.Repeat([]byte("weft"), size/4+1)[:size]
			if err := c.Write(ctx, kind, sent); err != nil {
				return err
			}
			got, p, err := c.Read(ctx)
			if err != nil || got != kind || !bytes.Equal(p, sent) {
				return fmt.Errorf("message of %d bytes: %d bytes of kind %v came back, %w", size, len(p), got, err)
			}
		}
	}
	return c.Close(websocket.StatusNormalClosure, "")
}

func fragments(ctx context.Context, c *websocket.Conn) error {
	w, err := c.Writer(ctx, websocket.MessageText)
	if err != nil {
		return err
	}
	for range 1000 {
		if _, err := io.WriteString(w, "fragment "); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	_, p, err := c.Read(ctx)
	if err != nil || len(p) != 9000 {
		return fmt.Errorf("%d bytes came back, %w", len(p), err)
	}
	return c.Close(websocket.StatusNormalClosure, "")
}

func pings(ctx context.Context, c *websocket.Conn) error {
	ctx = c.CloseRead(ctx)
	for range 100 {
		if err := c.Ping(ctx); err != nil {
			return err
		}
	}
	return nil
}

func closeByServer(ctx context.Context, c *websocket.Conn) error {
	for _, want := range []websocket.StatusCode{4001} {
		if err := c.Write(ctx, websocket.MessageText, fmt.Appendf(nil, "close %d because", want)); err != nil {
			return err
		}
		_, _, err := c.Read(ctx)
		var e websocket.CloseError
		if !errors.As(err, &e) || e.Code != want || e.Reason != "because" {
			return fmt.Errorf("closed by %w, want %d", err, want)
		}
	}
	return nil
}

func closeByClient(_ context.Context, c *websocket.Conn) error {
	return c.Close(websocket.StatusGoingAway, "leaving")
}
