package proxy

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/protobuf/proto"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/wire"
)

// frame writes a message as it travels in bodies.
func frame(m proto.Message) []byte {
	raw, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(raw))), raw...)
}

// unframe gives the messages of a body and the trailers of its last frame.
func unframe(t *testing.T, body []byte) (messages [][]byte, trailers string) {
	t.Helper()
	for len(body) >= 5 {
		n := int(binary.BigEndian.Uint32(body[1:5]))
		if len(body) < 5+n || trailers != "" {
			t.Fatalf("what follows the frames: %q", body)
		}
		if body[0]&0x80 != 0 {
			trailers = string(body[5 : 5+n])
		} else {
			messages = append(messages, body[5:5+n])
		}
		body = body[5+n:]
	}
	if len(body) > 0 {
		t.Fatalf("half a frame: %q", body)
	}
	return messages, trailers
}

// TestGRPCWeb calls a real server of gRPC by gRPC-Web over HTTP/1.1 and HTTP/2, in bytes and in text.
func TestGRPCWeb(t *testing.T) {
	m := newMesh(t)
	client, server := m.pod("frontend", "10.0.0.1", nil), m.pod("echo", "10.0.0.2", nil)
	server.serveGRPC(9080)
	client.cluster("echo", 9080, server)
	server.accepts(permissive(9080))
	client.knows("echo", 9080, forwardTo("echo"))
	client.config.publish(func(_ *conf.Snapshot, names map[string]*conf.Target) {
		for _, host := range []string{"echo", vip} {
			target := *names[wire.ListenerName(host, 9080)]
			target.Listener = &conf.Listener{Name: "echo", Chains: []*conf.Chain{{HTTP: &conf.HTTP{GRPCWeb: true}}}}
			names[wire.ListenerName(host, 9080)] = &target
		}
	})
	call := func(version int, method, media string, body []byte) (*http.Response, []byte) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), "POST", "http://echo:9080/grpc.testing.TestService/"+method, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", media)
		r.Header.Set("X-Grpc-Web", "1")
		r.Header.Set("X-Ask", "tell")
		res, err := client.clientOf(version).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		got, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res, got
	}
	text := func(p []byte) []byte { return []byte(base64.StdEncoding.EncodeToString(p)) }
	plain := func(p []byte) []byte {
		var out []byte
		for ; len(p) >= 4; p = p[4:] { // each quad may be padded
			q, err := base64.StdEncoding.DecodeString(string(p[:4]))
			if err != nil {
				t.Fatalf("%q: %v", p[:4], err)
			}
			out = append(out, q...)
		}
		return out
	}
	same := func(p []byte) []byte { return p }
	for _, version := range []int{1, 2} {
		for _, way := range []struct {
			media    string
			out, in  func([]byte) []byte
			returned string
		}{
			{"application/grpc-web+proto", same, same, "application/grpc-web+proto"},
			{"application/grpc-web-text", text, plain, "application/grpc-web-text+proto"},
		} {
			t.Run(fmt.Sprintf("HTTP/%d %s", version, way.media), func(t *testing.T) {
				for _, size := range []int{0, 1, 5000, 300000} {
					in := &grpc_testing.SimpleRequest{ResponseSize: int32(size), Payload: &grpc_testing.Payload{Body: make([]byte, size)}}
					res, body := call(version, "UnaryCall", way.media, way.out(frame(in)))
					messages, trailers := unframe(t, way.in(body))
					var out grpc_testing.SimpleResponse
					if len(messages) != 1 || proto.Unmarshal(messages[0], &out) != nil || out.Username != fmt.Sprint(size) || len(out.Payload.GetBody()) != size {
						t.Fatalf("%d bytes: %d messages, %+v", size, len(messages), res)
					}
					if !strings.Contains(trailers, "grpc-status:0\r\n") || !strings.Contains(trailers, "x-trail-bin:AAH/\r\n") || len(res.Trailer) > 0 {
						t.Errorf("trailers %q and %v", trailers, res.Trailer)
					}
					if got := res.Header.Get("Content-Type"); got != way.returned || res.Header.Get("X-Head") != "tell" || res.ContentLength >= 0 {
						t.Errorf("content type %q, head %v", got, res.Header)
					}
				}
				stream := &grpc_testing.StreamingOutputCallRequest{}
				for _, n := range []int32{3, 70000, 0, 1} {
					stream.ResponseParameters = append(stream.ResponseParameters, &grpc_testing.ResponseParameters{Size: n})
				}
				_, body := call(version, "StreamingOutputCall", way.media, way.out(frame(stream)))
				if messages, trailers := unframe(t, way.in(body)); len(messages) != 4 || trailers != "grpc-status:0\r\ngrpc-message:\r\n" {
					t.Errorf("%d messages, trailers %q", len(messages), trailers)
				}
				in := &grpc_testing.SimpleRequest{ResponseStatus: &grpc_testing.EchoStatus{Code: 5, Message: "not here"}}
				res, body := call(version, "UnaryCall", way.media, way.out(frame(in)))
				_, trailers := unframe(t, way.in(body))
				told := res.Header.Get("Grpc-Status") + res.Header.Get("Grpc-Message") + trailers
				if res.StatusCode != 200 || !strings.Contains(told, "5") || !strings.Contains(told, "not here") {
					t.Errorf("a refusal came as %v %q", res, trailers)
				}
			})
		}
	}
	t.Run("an answer of the mesh", func(t *testing.T) {
		client.cluster("echo", 9080) // without endpoints
		res, body := call(1, "UnaryCall", "application/grpc-web-text", text(frame(&grpc_testing.SimpleRequest{})))
		if res.StatusCode != 200 || res.Header.Get("Grpc-Status") != "14" || res.Header.Get("Content-Type") != "application/grpc-web-text+proto" || len(body) > 0 {
			t.Errorf("%+v %q", res, body)
		}
		client.cluster("echo", 9080, server)
	})
	t.Run("text that is none", func(t *testing.T) {
		for _, bad := range []string{"????", "AAAAAAA"} {
			res, body := call(1, "UnaryCall", "application/grpc-web-text", []byte(bad))
			if res.Header.Get("Grpc-Status") != "13" || !strings.Contains(res.Header.Get("Grpc-Message"), "base64") {
				t.Errorf("%q: %+v %q", bad, res, body)
			}
		}
	})
	t.Run("gRPC beside it", func(t *testing.T) {
		r, err := client.stub("echo", 9080).UnaryCall(t.Context(), &grpc_testing.SimpleRequest{ResponseSize: 7})
		if err != nil || len(r.Payload.Body) != 7 {
			t.Error(r, err)
		}
	})
	eventually(t, "log", func() bool { return client.logged("POST /grpc.testing.TestService/UnaryCall HTTP/1.1", " 200 - ") })
	eventually(t, "counts", func() bool {
		var page strings.Builder
		client.proxy.Metrics(&page)
		return sumOf(page.String(), "istio_requests_total", `request_protocol="grpc"`, `grpc_response_status="0"`) == 4*5+1 &&
			sumOf(page.String(), "istio_requests_total", `request_protocol="grpc"`, `grpc_response_status="5"`) == 4
	})
}
