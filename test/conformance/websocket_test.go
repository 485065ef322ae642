package conformance

import (
	"testing"

	"github.com/weftmesh/weft/test/rig"
)

// TestWebSocket has a client and a server of another's library talk: messages of every size and kind, fragments, compression, pings,
// closing by either side with its code and reason.
func TestWebSocket(t *testing.T) {
	program := peer(t, "websocket")
	app := server(t, program, "serve")
	r := rig.New(t)
	_, gateway := r.Gateway(nil, rig.Plain(app.String()))
	client, single := r.Outbound(rig.Plain(app.String()))
	_, inbound := r.Inbound(app)
	_, _, pair := r.Pair(app)
	for name, address := range map[string]string{"gateway": gateway, "outbound": single, "inbound": inbound, "pair": pair} {
		t.Run(name, func(t *testing.T) { run(t, program, "check", "ws://"+address+"/echo?x=y") })
	}
	t.Run("forward proxy", func(t *testing.T) {
		run(t, program, "check-connect", client.Forward(), "ws://"+app.String()+"/echo")
	})
}
