package exchange

import (
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"

	"github.com/weftmesh/weft/internal/proxy/message"
)

// The handshake of WebSocket has a key and a proof of its reading in HTTP/1.1 (RFC 6455 section 4) and neither in HTTP/2 (RFC 8441
// section 5). Between the two the proxy makes what is missing and takes away what is too much.
const (
	socketKey    = "Sec-WebSocket-Key"
	socketAccept = "Sec-WebSocket-Accept"
	socketGUID   = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
)

// shake makes the request for a WebSocket fit for the version of x.call.
func (x *Exchange) shake() {
	if !message.EqualFold(x.Req.Upgrade, "websocket") {
		return
	}
	key, had := x.Req.Header.Get(socketKey)
	switch {
	case x.call.Shared():
		x.socketKey = key // of the client, who expects its proof
		x.Req.Header.Del(socketKey)
	case !had && x.socketKey != "":
		x.Req.Header.Set(socketKey, x.socketKey)
	case !had && x.down.Shared(): // a client of HTTP/1.1 that has left it out is the server's to refuse
		var nonce [16]byte
		rand.Read(nonce[:])
		x.socketKey = base64.StdEncoding.EncodeToString(nonce[:])
		x.Req.Header.Set(socketKey, x.socketKey)
	}
}

// shaken makes the answer fit for the client's version.
func (x *Exchange) shaken() {
	h := &x.res.Header
	switch {
	case !message.EqualFold(x.Req.Upgrade, "websocket"):
	case x.down.Shared():
		h.Del(socketAccept)
	case x.call.Shared() && x.socketKey != "":
		sum := sha1.Sum([]byte(x.socketKey + socketGUID))
		h.Set(socketAccept, base64.StdEncoding.EncodeToString(sum[:]))
	}
}
