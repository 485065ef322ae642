package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"time"

	"github.com/weftmesh/weft/internal/api"
	"github.com/weftmesh/weft/internal/cli"
	"github.com/weftmesh/weft/internal/local"
	"github.com/weftmesh/weft/internal/replica"
)

// runControl runs a control plane by itself.
func runControl(ctx context.Context, o cli.ControlOptions) error {
	log, err := local.NewLogger(o.LogOutput, o.LogLevel)
	if err != nil {
		return err
	}
	settings, err := meshSettings(cli.UpOptions{MeshConfig: o.MeshConfig, RegistryOnly: o.RegistryOnly, AccessLog: true})
	if err != nil {
		return err
	}
	if o.MeshConfig == "" {
		settings.TrustDomain = o.TrustDomain
	}
	ttl, err := time.ParseDuration(o.CertTTL)
	if err != nil || ttl < 2*time.Second {
		return fmt.Errorf("cert-ttl %q: want a duration of at least 2s, such as 24h", o.CertTTL)
	}
	secure, err := clientTLS(file{"--etcd-ca", o.EtcdCA}, file{"--etcd-cert", o.EtcdCert}, file{"--etcd-key", o.EtcdKey})
	if err != nil {
		return err
	}
	ofConsul := func(name string) file { return file{name, os.Getenv(name)} } // those that Consul's own commands read
	consulTLS, err := clientTLS(ofConsul("CONSUL_CACERT"), ofConsul("CONSUL_CLIENT_CERT"), ofConsul("CONSUL_CLIENT_KEY"))
	if err != nil {
		return err
	}
	metrics := o.MetricsAddress
	if metrics == "none" {
		metrics = "-"
	}
	return addressInUse(replica.Run(ctx, replica.Options{
		Mesh: o.Mesh, StateDir: o.StateDir, RunDir: o.RunDir, Paths: o.Paths, Kubeconfig: o.Kubeconfig,
		Consul: o.Consul, ConsulToken: os.Getenv("CONSUL_HTTP_TOKEN"), ConsulTLS: consulTLS,
		Etcd: o.Etcd, EtcdPrefix: o.EtcdPrefix, EtcdTLS: secure,
		Address: o.Address, HTTPAddress: metrics, Settings: settings, CertTTL: ttl, Log: log,
	}), "--metrics-address or --xds-address; or stop what has it")
}

// file is one with keys or certificates, and how its name was given.
type file struct{ option, name string }

// clientTLS is how a server is spoken to; nil where nothing is given.
func clientTLS(ca, cert, key file) (*tls.Config, error) {
	if ca.name == "" && cert.name == "" && key.name == "" {
		return nil, nil
	}
	if (cert.name == "") != (key.name == "") {
		return nil, &api.InvalidError{Message: cert.option + " and " + key.option + " go together", Hint: "give both, or neither"}
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca.name != "" {
		text, err := os.ReadFile(ca.name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", ca.option, err)
		}
		if c.RootCAs = x509.NewCertPool(); !c.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s %s: no certificate in it", ca.option, ca.name)
		}
	}
	if cert.name != "" {
		pair, err := tls.LoadX509KeyPair(cert.name, key.name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", cert.option, err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}
