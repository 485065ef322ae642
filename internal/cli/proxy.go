package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/weftmesh/weft/internal/api"
)

func (s *session) proxyCommand() *cobra.Command {
	c := &cobra.Command{Use: "proxy", Short: "Look after sidecars and gateways",
		Example: `  weft proxy upgrade reviews-v1
  weft proxy join --help`}
	c.AddCommand(s.proxyUpgradeCommand(), s.proxyJoinCommand())
	return c
}

func (s *session) proxyUpgradeCommand() *cobra.Command {
	var namespace string
	c := &cobra.Command{
		Use:   "upgrade [WORKLOAD...]",
		Short: "Let the weft-proxy on disk take over from the running ones, without losing a request",
		Long: `Starts the weft-proxy that is on disk now beside each running one. The new process takes the
listeners over once it is ready; the old one finishes what it has and ends. A new process that
does not become ready changes nothing. Without names: every sidecar and gateway, one after the
other, until one fails. Proxies are never upgraded by themselves.`,
		Example: `  weft proxy upgrade
  weft proxy upgrade reviews-v1 istio-system/istio-ingressgateway`,
		RunE: func(c *cobra.Command, args []string) error {
			client := s.client()
			defer client.Close()
			var all []api.Workload
			for _, a := range args {
				ns, name := splitName(a, namespace)
				all = append(all, api.Workload{Namespace: ns, Name: name})
			}
			if len(args) == 0 {
				st, err := client.Status(c.Context())
				if err != nil {
					return err
				}
				all = st.Workloads
			}
			for i, w := range all {
				done, err := client.Upgrade(c.Context(), w.Namespace, w.Name)
				for _, u := range done {
					s.out.printf("[%d/%d] %s: %s -> %s, process %d\n", i+1, len(all), u.Pod, u.From, u.To, u.PID)
				}
				if err != nil {
					return fmt.Errorf("%s/%s: %w", w.Namespace, w.Name, err)
				}
			}
			return nil
		},
	}
	c.Flags().StringVarP(&namespace, "namespace", "n", "default", "namespace of the workloads")
	return c
}
