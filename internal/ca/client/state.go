package client

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/weftmesh/weft/internal/ca/keyfile"
	"github.com/weftmesh/weft/internal/identity"
)

const stateFile = "identity.json"

// state is the stored form of a generation, in one file so that its parts always fit together.
type state struct {
	// Anchor is the fingerprint of the bootstrap roots under which the certificate was obtained. As long as the bootstrap is the
	// same, what is stored came after it, even if the root has been changed since; with another bootstrap, the bootstrap counts.
	Anchor   string    `json:"anchor"`
	Obtained time.Time `json:"obtained"`
	Key      string    `json:"key"`
	Chain    string    `json:"chain"`
	Roots    string    `json:"roots"`
}

// restore takes up the stored certificate if it is ours and valid. The roots of one that has expired are still newer than the
// bootstrap's, so those are kept for reaching the control plane.
func (c *Client) restore() error {
	if c.options.StateDir == "" {
		return nil
	}
	path := filepath.Join(c.options.StateDir, stateFile)
	text, err := keyfile.Read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var s state
	if err := json.Unmarshal(text, &s); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if s.Anchor != c.anchor {
		return fmt.Errorf("%s: it was obtained under other roots than the bootstrap's", path)
	}
	if bundle, err := identity.ParseBundle(c.options.TrustDomain, []byte(s.Roots)); err == nil {
		c.control.Publish(&identity.Material{Bundle: bundle})
	}
	key, err := decodeKey(s.Key)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	m, err := c.material(s.Chain, s.Roots, key)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	obtained := s.Obtained
	if now := time.Now(); obtained.After(now) { // the clock was set back
		obtained = now
	}
	c.adopt(generation{material: m, obtained: obtained})
	return nil
}

// save stores the generation. A failure is logged and no more: the certificate is good without it.
func (c *Client) save() {
	if c.options.StateDir == "" {
		return
	}
	text, err := c.stored()
	if err != nil {
		c.unsaved(err)
		return
	}
	write := func() {
		err := os.MkdirAll(c.options.StateDir, 0o700)
		if err == nil {
			err = keyfile.Replace(filepath.Join(c.options.StateDir, stateFile), text, 0o600)
		}
		if err != nil {
			c.unsaved(err)
		}
	}
	if c.options.Store != nil {
		c.options.Store(write)
		return
	}
	write()
}

func (c *Client) unsaved(err error) {
	c.options.Log.Warn("the certificate could not be stored; this proxy cannot start while the control plane is down", "error", err)
}

// stored is the generation in its stored form.
func (c *Client) stored() ([]byte, error) {
	m := c.generation.material
	der, err := x509.MarshalPKCS8PrivateKey(m.Certificate.PrivateKey)
	if err != nil {
		return nil, err
	}
	var chain []byte
	for _, raw := range m.Certificate.Certificate {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw})...)
	}
	return json.Marshal(state{
		Anchor: c.anchor, Obtained: c.generation.obtained.UTC(),
		Key:   string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
		Chain: string(chain), Roots: string(m.Bundle.PEM(c.options.TrustDomain)),
	})
}

func decodeKey(text string) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, errors.New("no PEM private key in it")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	k, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("the key is a %T, want ECDSA", key)
	}
	return k, nil
}
