package cli

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/weftmesh/weft/internal/api"
	"github.com/weftmesh/weft/internal/wire"
)

// ControlOptions are the settings of `weft control run`.
type ControlOptions struct {
	Mesh, StateDir, RunDir    string
	Paths                     []string
	Kubeconfig                string
	Consul                    string
	Etcd                      []string
	EtcdPrefix                string
	EtcdCA, EtcdCert, EtcdKey string
	Address, MetricsAddress   string
	TrustDomain, MeshConfig   string
	RegistryOnly              bool
	LogLevel, CertTTL         string
	LogOutput                 io.Writer
}

func (s *session) controlCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "control stop|start|restart",
		Short: "Stop or start the embedded control plane; traffic goes on without it",
		Args:  cobra.ExactArgs(1), ValidArgs: []string{"stop", "start", "restart"},
		Example: "  weft control restart",
		RunE: func(c *cobra.Command, args []string) error {
			done := map[string]string{"stop": "stopped", "start": "started", "restart": "restarted"}
			if done[args[0]] == "" {
				return &usageError{fmt.Errorf("unknown command %q for %q: want stop, start, restart or run", args[0], c.CommandPath())}
			}
			client := s.client()
			defer client.Close()
			if err := client.Control(c.Context(), args[0]); err != nil {
				return err
			}
			s.out.printf("control plane %s\n", done[args[0]])
			return nil
		},
	}
	c.AddCommand(s.controlRunCommand())
	return c
}

func (s *session) controlRunCommand() *cobra.Command {
	var o ControlOptions
	c := &cobra.Command{
		Use:   "run",
		Short: "Run a control plane by itself, alone or as one of several replicas",
		Long: `Run a control plane without workloads, for proxies that join it (weft proxy join). It reads
objects from files, a Kubernetes API server, Consul and etcd. With --etcd, what weft apply
says is kept there, and so are the authority's keys: every control plane on the same etcd and
prefix is a replica of the same mesh. The other commands reach it by its --mesh.`,
		Example: `  weft control run --mesh prod --source mesh/ --xds-address 0.0.0.0:15012
  weft control run --mesh prod --etcd 10.0.0.1:2379,10.0.0.2:2379
  weft control run --mesh prod --kubeconfig ~/.kube/config`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if s.programs.Control == nil {
				return errors.New("this build cannot run a control plane")
			}
			var err error
			if o.Paths, err = absolute(o.Paths); err != nil {
				return err
			}
			o.Mesh, o.RunDir, o.LogOutput = s.mesh, api.RunDir(s.mesh), s.out.err
			if o.StateDir == "" {
				o.StateDir = api.StateDir(s.mesh)
			}
			return s.programs.Control(c.Context(), o)
		},
	}
	f := c.Flags()
	f.StringArrayVar(&o.Paths, "source", nil, "file or folder with objects, which is followed; may be repeated")
	f.StringVar(&o.Kubeconfig, "kubeconfig", "", "file that leads to a Kubernetes API server whose objects are read; in-cluster for that of the pod")
	f.StringVar(&o.Consul, "consul", "", "URL of a Consul whose services are read; its token is taken from CONSUL_HTTP_TOKEN")
	f.StringSliceVar(&o.Etcd, "etcd", nil, "endpoints of the etcd that keeps applied objects and the authority, with commas")
	f.StringVar(&o.EtcdPrefix, "etcd-prefix", "/weft/", "where in etcd")
	f.StringVar(&o.EtcdCA, "etcd-ca", "", "file with the authority of etcd's certificate; with it, TLS is spoken")
	f.StringVar(&o.EtcdCert, "etcd-cert", "", "file with the certificate to show to etcd")
	f.StringVar(&o.EtcdKey, "etcd-key", "", "file with its key")
	f.StringVar(&o.StateDir, "state", "", "folder for keys, applied objects and ages (default "+defaultState+")")
	f.StringVar(&o.Address, "xds-address", "127.0.0.1:15012", "address for proxies")
	f.StringVar(&o.MetricsAddress, "metrics-address", "127.0.0.1:15014", "address of metrics and debug pages; none for no such listener")
	f.StringVar(&o.TrustDomain, "trust-domain", "cluster.local", "trust domain of the mesh")
	f.StringVar(&o.MeshConfig, "mesh-config", "", "file with the mesh's settings, in the form of Istio's MeshConfig")
	f.BoolVar(&o.RegistryOnly, "registry-only", false, "refuse calls to destinations that the mesh does not know")
	f.StringVar(&o.LogLevel, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&o.CertTTL, "cert-ttl", "24h", "lifetime of workload certificates; they are renewed at half of it")
	return c
}

func (s *session) proxyJoinCommand() *cobra.Command {
	var r api.JoinRequest
	r.DrainSeconds = new(int)
	c := &cobra.Command{
		Use:   "join NAME",
		Short: "Print the bootstrap file with which a weft-proxy joins a control plane",
		Long: `Print the bootstrap file of a weft-proxy: who it is, where its control plane is, and a token that
proves it. Whoever has the file can be that workload for 30 days: keep it with mode 0600. With the
addresses of several replicas the proxy goes to one of them, and to another when that fails.
A gateway needs a WorkloadEntry of its name too, whose labels Gateways select.`,
		Example: `  weft --mesh prod proxy join reviews-1 --service-account reviews --workload reviews-v1 \
      --label app=reviews --control 10.0.0.1:15012,10.0.0.2:15012 > bootstrap.json
  weft-proxy --bootstrap bootstrap.json`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			client := s.client()
			defer client.Close()
			if r.Name = args[0]; r.Workload == "" {
				r.Workload = r.Name
			}
			reply, err := client.Join(c.Context(), r)
			if err != nil {
				return err
			}
			s.out.printf("%s\n", reply.Bootstrap)
			for _, note := range reply.Notes {
				fmt.Fprintln(s.out.err, "note:", note)
			}
			return nil
		},
	}
	f := c.Flags()
	f.StringVarP(&r.Namespace, "namespace", "n", "default", "namespace of the workload")
	f.StringVar(&r.ServiceAccount, "service-account", "default", "service account of the workload")
	f.StringVar(&r.Workload, "workload", "", "what the instance is one of (default its name)")
	f.StringToStringVar(&r.Labels, "label", nil, "label of the workload, as app=reviews; may be repeated")
	f.BoolVar(&r.Gateway, "gateway", false, "the proxy is a gateway")
	f.StringVar(&r.IP, "ip", "", "address of the workload")
	f.StringVar(&r.Control, "control", "", "addresses of the replicas, with commas (default that of the one that is asked)")
	f.StringVar(&r.StateDir, "state", "", "folder in which the proxy keeps key, certificate and configuration")
	f.StringVar(&r.Outbound, "outbound", "", "address to which outgoing connections are redirected")
	f.StringVar(&r.Inbound, "inbound", "", "address to which incoming connections are redirected")
	f.StringVar(&r.ForwardProxy, "forward-proxy", "", "address for clients that use HTTP_PROXY")
	f.StringVar(&r.Admin, "admin", "", "address of metrics, health and dumps")
	f.IntVar(r.DrainSeconds, "drain-seconds", wire.DefaultDrainSeconds, "seconds that the proxy waits for what is under way when it is told to end; 0 cuts it off")
	return c
}
