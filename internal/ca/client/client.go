// Package client is the proxy's side of the certificate authority: it makes keys, has them certified by the control plane, and
// keeps the certificate fresh for as long as the process lives. Keys never leave the machine.
package client

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"time"

	"github.com/weftmesh/weft/internal/identity"
)

// Options of New. Zero fields take their defaults.
type Options struct {
	// Control is the control plane's address: "host:port" or "unix:///path". TLS is spoken over both.
	Control string
	// TrustDomain and Roots (PEM) are from the bootstrap file; the control plane's certificate must lead to Roots and be for
	// ControlID, which is identity.ControlID(TrustDomain) when zero.
	TrustDomain string
	Roots       []byte
	ControlID   identity.ID
	// ID is who we expect to be; a certificate for anybody else is refused. Required.
	ID identity.ID
	// Token gives the proof of identity. It is called for each request, so that a token in a file may be replaced. Nil, or an
	// empty token, leaves the certificate we have as the only proof.
	Token func() (string, error)
	// StateDir keeps key, certificate and roots (identity.json, mode 0600) for a start without control plane. Empty keeps nothing.
	StateDir string
	// Store runs write, which changes StateDir: now, or later, once no other process uses it. nil runs it at once.
	Store func(write func())
	// Changed hears of each generation, the one that New finds included, once it is in use; nil for nobody. Renewal waits for it.
	Changed func(*identity.Material)
	// TTL is the lifetime to ask for; 0 leaves it to the authority.
	TTL time.Duration
	// Dial makes the connection (network is "tcp" or "unix"); a net.Dialer's when nil. A sidecar passes one that marks its sockets.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Timeout bounds one request, 10 s. MinBackoff (200 ms) and MaxBackoff (30 s) bound the wait after a failed one.
	Timeout, MinBackoff, MaxBackoff time.Duration
	Log                             *slog.Logger // slog.Default
}

// Client keeps one workload's certificate.
type Client struct {
	options Options // these are set once
	anchor  string  // fingerprint of Options.Roots
	source  *identity.Source
	control *identity.Source // what we show to and trust of the control plane; has roots before there is a certificate
	ready   chan struct{}
	nudge   chan struct{}

	generation generation // owned by New, then by Run

	renewed, failed atomic.Uint64
}

// generation is a certificate with what is needed to take it up again after a restart.
type generation struct {
	material *identity.Material // nil for none
	obtained time.Time
}

// New checks the options and takes up a certificate that an earlier process left in StateDir, if it is ours and still valid.
func New(o Options) (*Client, error) {
	if err := o.setDefaults(); err != nil {
		return nil, fmt.Errorf("ca client: %w", err)
	}
	bundle, err := identity.ParseBundle(o.TrustDomain, o.Roots)
	if err != nil {
		return nil, fmt.Errorf("ca client: bootstrap roots: %w", err)
	}
	sum := sha256.Sum256(bundle.PEM(o.TrustDomain))
	c := &Client{
		options: o, anchor: hex.EncodeToString(sum[:]),
		source: new(identity.Source), control: new(identity.Source),
		ready: make(chan struct{}), nudge: make(chan struct{}, 1),
	}
	c.control.Publish(&identity.Material{Bundle: bundle})
	if err := c.restore(); err != nil {
		o.Log.Warn("the stored certificate is not used; a new one will be asked for", "error", err)
	}
	return c, nil
}

func (o *Options) setDefaults() error {
	if o.Control == "" || o.TrustDomain == "" {
		return errors.New("control and trust domain are required")
	}
	if _, _, err := splitAddress(o.Control); err != nil {
		return err
	}
	if err := o.ID.Validate(); err != nil {
		return err
	}
	if o.ID.TrustDomain != o.TrustDomain {
		return fmt.Errorf("%s is not of trust domain %q", o.ID, o.TrustDomain)
	}
	if o.ControlID.IsZero() {
		o.ControlID = identity.ControlID(o.TrustDomain)
	}
	if o.Token == nil {
		o.Token = func() (string, error) { return "", nil }
	}
	if o.Dial == nil {
		o.Dial = new(net.Dialer).DialContext
	}
	if o.Timeout <= 0 {
		o.Timeout = 10 * time.Second
	}
	if o.MinBackoff <= 0 {
		o.MinBackoff = 200 * time.Millisecond
	}
	if o.MaxBackoff <= 0 {
		o.MaxBackoff = 30 * time.Second
	}
	o.MaxBackoff = max(o.MaxBackoff, o.MinBackoff)
	if o.Log == nil {
		o.Log = slog.Default()
	}
	return nil
}

// Source publishes the workload's certificate and the roots it trusts. Its Current is nil until Ready.
func (c *Client) Source() *identity.Source { return c.source }

// Ready is closed once there is a certificate.
func (c *Client) Ready() <-chan struct{} { return c.ready }

// Renew asks Run for a new certificate now, as when the roots are known to have changed. It does not wait.
func (c *Client) Renew() {
	select {
	case c.nudge <- struct{}{}:
	default: // one is asked for already
	}
}

// Expiry is when the certificate ends, the zero time before the first; it feeds a gauge.
func (c *Client) Expiry() time.Time { return c.source.Current().NotAfter() }

// Stats counts the certificates obtained from the authority and the failed attempts; they feed counters.
func (c *Client) Stats() (renewed, failed uint64) { return c.renewed.Load(), c.failed.Load() }

// ControlTLS gives the configuration for connections to the control plane. It verifies the control plane's identity, and shows
// the workload's certificate once there is one that is valid.
func (c *Client) ControlTLS(nextProtos ...string) *tls.Config { return c.controlTLS(true, nextProtos) }

func (c *Client) controlTLS(showCertificate bool, nextProtos []string) *tls.Config {
	host := c.options.Control
	if network, address, err := splitAddress(host); err == nil {
		host = serverName(network, address)
	}
	config := c.control.ClientTLS(identity.ExactIDs(c.options.ControlID), identity.TLSOptions{NextProtos: nextProtos, ServerName: host})
	show := config.GetClientCertificate
	config.GetClientCertificate = func(r *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		// An expired certificate would fail the handshake, and with it the token's chance to get a new one.
		if !showCertificate || !time.Now().Before(c.control.Current().NotAfter()) {
			return new(tls.Certificate), nil
		}
		return show(r)
	}
	return config
}

// Run gets a certificate, unless New found one, and renews it between half and two thirds of its life. Failures are tried again
// for ever with back-off, and the certificate at hand stays in use meanwhile. Run returns nil when ctx ends; call it once.
func (c *Client) Run(ctx context.Context) error {
	wait, failures := c.untilRenewal(time.Now()), 0
	for {
		if !c.sleep(ctx, wait) {
			return nil
		}
		next, err := c.obtain(ctx, failures)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			failures++
			c.failed.Add(1)
			wait = c.backoff(failures)
			expires := "there is none yet"
			if at := c.Expiry(); !at.IsZero() {
				expires = at.Format(time.RFC3339)
			}
			c.options.Log.Warn("no new certificate from the authority; trying again", "error", err,
				"attempt", failures, "in", wait.Round(time.Millisecond), "expires", expires)
		default:
			failures = 0
			c.renewed.Add(1)
			c.adopt(next)
			c.save()
			wait = c.untilRenewal(time.Now())
		}
	}
}

// sleep waits for the duration or a nudge, and is false when ctx ends first.
func (c *Client) sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
	case <-c.nudge:
	}
	return true
}

// adopt makes a generation the one in use. Open connections keep theirs.
func (c *Client) adopt(g generation) {
	first := c.generation.material == nil
	c.generation = g
	c.control.Publish(g.material)
	c.source.Publish(g.material)
	if c.options.Changed != nil {
		c.options.Changed(g.material)
	}
	if first {
		close(c.ready)
	}
}

// untilRenewal places the renewal at random between 1/2 and 2/3 of the certificate's life with us, so that workloads that started
// together do not renew together, and a third of the life is left for a control plane that is down.
func (c *Client) untilRenewal(now time.Time) time.Duration {
	g := c.generation
	if g.material == nil {
		return 0
	}
	life := g.material.NotAfter().Sub(g.obtained)
	due := g.obtained.Add(time.Duration(float64(life) * (0.5 + rand.Float64()/6)))
	// The floor keeps a clock that is ahead of the authority's, to which each certificate looks old, from asking all the time.
	return max(due.Sub(now), c.options.MinBackoff)
}

// backoff doubles with each failure, and is at random between half of that and all.
func (c *Client) backoff(failures int) time.Duration {
	d := c.options.MaxBackoff
	if shift := failures - 1; shift < 16 {
		d = min(d, c.options.MinBackoff<<shift)
	}
	return d/2 + rand.N(d/2+1)
}
