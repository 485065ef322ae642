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
	secure, err := etcdTLS(o)
	if err != nil {
		return err
	}
	metrics := o.MetricsAddress
	if metrics == "none" {
		metrics = "-"
	}
	return addressInUse(replica.Run(ctx, replica.Options{
		Mesh: o.Mesh, StateDir: o.StateDir, RunDir: o.RunDir, Paths: o.Paths, Kubeconfig: o.Kubeconfig,
		Consul: o.Consul, ConsulToken: os.Getenv("CONSUL_HTTP_TOKEN"),
		Etcd: o.Etcd, EtcdPrefix: o.EtcdPrefix, EtcdTLS: secure,
		Address: o.Address, HTTPAddress: metrics, Settings: settings, CertTTL: ttl, Log: log,
	}), "--metrics-address or --xds-address; or stop what has it")
}

// etcdTLS is nil where etcd is spoken to in plaintext.
func etcdTLS(o cli.ControlOptions) (*tls.Config, error) {
	if o.EtcdCA == "" && o.EtcdCert == "" && o.EtcdKey == "" {
		return nil, nil
	}
	if (o.EtcdCert == "") != (o.EtcdKey == "") {
		return nil, &api.InvalidError{Message: "--etcd-cert and --etcd-key go together", Hint: "give both, or neither"}
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.EtcdCA != "" {
		text, err := os.ReadFile(o.EtcdCA)
		if err != nil {
			return nil, fmt.Errorf("etcd-ca: %w", err)
		}
		if c.RootCAs = x509.NewCertPool(); !c.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("etcd-ca %s: no certificate in it", o.EtcdCA)
		}
	}
	if o.EtcdCert != "" {
		pair, err := tls.LoadX509KeyPair(o.EtcdCert, o.EtcdKey)
		if err != nil {
			return nil, fmt.Errorf("etcd-cert: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}
