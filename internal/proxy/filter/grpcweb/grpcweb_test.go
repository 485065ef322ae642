package grpcweb

import (
	"bytes"
	"encoding/base64"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/weftmesh/weft/internal/proxy/message"
)

func TestEnter(t *testing.T) {
	for _, c := range []struct {
		method, media, accept string
		want                  string // the media type after it; empty for a request that is none of gRPC-Web
		call                  Call
	}{
		{"POST", "application/grpc-web", "", "application/grpc", Call{}},
		{"POST", "application/grpc-web+proto", "*/*", "application/grpc+proto", Call{}},
		{"POST", "Application/GRPC-Web-Text; charset=utf-8", "", "application/grpc; charset=utf-8", Call{true, true}},
		{"POST", "application/grpc-web-text+proto", "application/grpc-web+proto", "application/grpc+proto", Call{TextIn: true}},
		{"POST", "application/grpc-web+proto", "application/grpc-web-text", "application/grpc+proto", Call{TextOut: true}},
		{"POST", "application/grpc-website", "", "", Call{}},
		{"POST", "application/grpc", "", "", Call{}},
		{"POST", "", "", "", Call{}},
		{"GET", "application/grpc-web", "", "", Call{}},
	} {
		r := message.Request{Method: c.method, Body: message.Body{Kind: message.Sized, Length: 8}}
		r.Header.Add("Content-Length", "8")
		r.Header.Add("Content-Type", c.media)
		if c.accept != "" {
			r.Header.Add("Accept", c.accept)
		}
		call, ok := Enter(&r)
		media, _ := r.Header.Get("Content-Type")
		if c.want == "" {
			if _, te := r.Header.Get("TE"); ok || te || media != c.media {
				t.Errorf("%+v was taken for gRPC-Web", c)
			}
			continue
		}
		te, _ := r.Header.Get("TE")
		_, sized := r.Header.Get("Content-Length")
		if !ok || call != c.call || media != c.want || te != "trailers" || sized == call.TextIn || (r.Body.Kind == message.Sized) == call.TextIn {
			t.Errorf("%+v: %v %+v, %q, TE %q, body %+v", c, ok, call, media, te, r.Body)
		}
	}
}

func TestLeave(t *testing.T) {
	for _, c := range []struct {
		media string
		body  message.BodyKind
		text  bool
		want  string
	}{
		{"application/grpc", message.Chunked, false, "application/grpc-web+proto"},
		{"application/grpc+json", message.Sized, true, "application/grpc-web-text+json"},
		{"application/grpc", message.NoBody, false, "application/grpc-web+proto"},
		{"text/plain", message.Sized, true, ""},
		{"application/grpcx", message.Sized, true, ""},
	} {
		r := message.Response{Status: 200, Body: message.Body{Kind: c.body, Length: 8}}
		r.Header.Add("Content-Type", c.media)
		ok := Call{TextOut: c.text}.Leave(&r)
		media, _ := r.Header.Get("Content-Type")
		switch {
		case c.want == "" && (ok || media != c.media || r.Body.Kind != c.body):
			t.Errorf("%+v was taken for gRPC", c)
		case c.want != "" && (!ok || media != c.want || r.Body.Kind == message.Sized || (r.Body.Kind == message.NoBody) != (c.body == message.NoBody)):
			t.Errorf("%+v: %v, %q, body %+v", c, ok, media, r.Body)
		}
	}
}

func TestTrailers(t *testing.T) {
	var h message.Header
	h.Add("Grpc-Status", "5")
	h.Add("grpc-message", "not here")
	want := "grpc-status:5\r\ngrpc-message:not here\r\n"
	if got := Trailers(&h); string(got) != "\x80\x00\x00\x00"+string(rune(len(want)))+want {
		t.Errorf("%q", got)
	}
	if got := Trailers(nil); string(got) != "\x80\x00\x00\x00\x00" {
		t.Errorf("%q", got)
	}
}

// TestText: whatever is written in parts and flushed now and then reads as it was.
func TestText(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for range 500 {
		var e Encoder
		var d Decoder
		var want, text, got []byte
		for range random.IntN(8) {
			p := make([]byte, random.IntN(20))
			for i := range p {
				p[i] = byte(random.Uint32())
			}
			want = append(want, p...)
			text = append(text, e.Encode(p)...)
			if random.IntN(2) == 0 {
				text = append(text, e.Flush()...)
			}
		}
		text = append(text, e.Flush()...)
		for rest := text; len(rest) > 0; {
			n := min(len(rest), 1+random.IntN(9))
			p, err := d.Decode(nil, rest[:n])
			if err != nil {
				t.Fatalf("%q: %v", text, err)
			}
			got = append(got, p...)
			rest = rest[n:]
		}
		if err := d.End(); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%q reads as %q (%v), want %q", text, got, err, want)
		}
	}
	var e Encoder
	if got := string(e.Encode([]byte("abcdef"))) + string(e.Flush()); got != base64.StdEncoding.EncodeToString([]byte("abcdef")) {
		t.Error(got)
	}
}

func TestTextThatIsNone(t *testing.T) {
	for _, text := range []string{"????", "AA=A", "====", "AAA\n", "A B="} {
		var d Decoder
		if p, err := d.Decode(nil, []byte(text)); !errors.Is(err, ErrText) {
			t.Errorf("%q reads as %q, %v", text, p, err)
		}
	}
	var d Decoder
	if _, err := d.Decode(nil, []byte(strings.Repeat("A", 6))); err != nil || d.Missing() != 2 || !errors.Is(d.End(), ErrText) {
		t.Error("text that ends in the middle passes")
	}
}
