package generate

import (
	"testing"

	"github.com/weftmesh/weft/internal/control/generate/transport"
	"github.com/weftmesh/weft/internal/control/model"
)

// TestServerWithoutItsSecrets: what cannot verify clients, or show a certificate, takes no connections. A proxy would refuse the whole
// listener where this were sent half.
func TestServerWithoutItsSecrets(t *testing.T) {
	pem := []byte("x")
	for name, s := range map[string]model.ServerTLS{
		"no certificate":         {Mode: model.TLSSimple},
		"no authority":           {Mode: model.TLSMutual, Certificate: pem, Key: pem},
		"no authority, optional": {Mode: model.TLSOptionalMutual, Certificate: pem, Key: pem},
	} {
		if transport.Server(&model.Server{TLS: &s}, nil) != nil {
			t.Errorf("%s: takes connections", name)
		}
	}
	if transport.Server(&model.Server{TLS: &model.ServerTLS{Mode: model.TLSMutual, Certificate: pem, Key: pem, CA: pem}}, nil) == nil {
		t.Error("takes none though all is there")
	}
}
