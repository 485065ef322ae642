package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weftmesh/weft/internal/api"
)

func (s *session) downCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "Stop the mesh and everything in it",
		Example: `  weft down
  weft down --mesh other`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			client := s.client()
			defer client.Close()
			if err := client.Down(c.Context()); err != nil {
				return err
			}
			fmt.Fprintln(s.out.err, "stopping ...")
			for wait(c.Context(), pollInterval) {
				if _, err := client.Status(c.Context()); errors.Is(err, api.ErrNotRunning) {
					s.out.printf("stopped\n")
					return nil
				}
			}
			return c.Context().Err()
		},
	}
}

func (s *session) runCommand() *cobra.Command {
	var p api.Program
	var env []string
	c := &cobra.Command{
		Use:   "run --name NAME [--port PORT] -- COMMAND [ARG...]",
		Short: "Add any program to the mesh",
		Long: `Add any program to the mesh, unchanged: it gets a sidecar, an identity and, with --port, a
service name that the others can call. It is kept, and restarted, until "weft delete program NAME".`,
		Example: `  weft run --name files --port 8000 -- python3 -m http.server 8000
  weft run --name worker --env QUEUE=jobs -- ./worker`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			p.Command = args
			p.Env = map[string]string{}
			for _, e := range env {
				k, v, ok := strings.Cut(e, "=")
				if !ok || k == "" {
					return &usageError{fmt.Errorf("env %q: want NAME=VALUE", e)}
				}
				p.Env[k] = v
			}
			if p.Port < 0 || p.Port > 65535 {
				return &usageError{fmt.Errorf("port %d: want 1 to 65535", p.Port)}
			}
			dir, err := workingDir(p.Dir)
			if err != nil {
				return err
			}
			p.Dir = dir
			client := s.client()
			defer client.Close()
			if err := client.AddProgram(c.Context(), p); err != nil {
				return err
			}
			if err := s.awaitProgram(c.Context(), client, p); err != nil {
				return err
			}
			if p.Port > 0 {
				s.out.printf("  call it:   http://%s:%d\n", p.Name, p.Port)
			}
			s.out.printf("  see it:    weft logs -f %s\n  stop it:   weft delete program %s\n", p.Name, p.Name)
			return nil
		},
	}
	c.Flags().StringVar(&p.Name, "name", "", "name of workload, service and identity")
	c.Flags().StringVarP(&p.Namespace, "namespace", "n", "default", "namespace")
	c.Flags().IntVar(&p.Port, "port", 0, "port that it listens on; leave out for a program that only calls")
	c.Flags().StringArrayVar(&env, "env", nil, "environment variable as NAME=VALUE; may be repeated")
	c.Flags().StringVar(&p.Dir, "dir", "", "working directory (default: this one)")
	_ = c.MarkFlagRequired("name")
	return c
}

// awaitProgram waits until a program is ready, so that the next command can call it, and says when it takes long or fails.
func (s *session) awaitProgram(ctx context.Context, client *api.Client, p api.Program) error {
	for began := time.Now(); wait(ctx, pollInterval); {
		st, err := client.Status(ctx)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(st.Workloads, func(w api.Workload) bool { return w.Name == p.Name && w.Namespace == p.Namespace })
		switch {
		case i >= 0 && st.Workloads[i].State == "Running" && st.Settled:
			s.out.printf("Program/%s/%s runs in the mesh\n", p.Namespace, p.Name)
			return nil
		case i >= 0 && (st.Workloads[i].State == "CrashLoopBackOff" || st.Workloads[i].State == "Invalid"), time.Since(began) > 10*time.Second:
			s.out.printf("Program/%s/%s was added and is not ready yet", p.Namespace, p.Name)
			if i >= 0 {
				s.out.printf(": %s", st.Workloads[i].Reason)
			}
			s.out.printf("\n")
			return nil
		}
	}
	return ctx.Err()
}

func (s *session) execCommand() *cobra.Command {
	var namespace string
	c := &cobra.Command{
		Use:   "exec WORKLOAD|INSTANCE -- COMMAND [ARG...]",
		Short: "Run a command as part of a workload: its network, its identity",
		Example: `  weft exec productpage -- curl -s http://ratings:9080/ratings/0
  weft exec reviews-v2 -- sh`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			ns, name := splitName(args[0], namespace)
			command := args[1:]
			if command[0] == "--" { // kept by the parser, which stops at the first name so that the command's flags are its own
				command = command[1:]
			}
			if len(command) == 0 {
				return &usageError{errors.New("which command? weft exec " + args[0] + " -- COMMAND")}
			}
			client := s.client()
			defer client.Close()
			code, err := client.Exec(c.Context(), api.ExecRequest{Namespace: ns, Name: name, Command: command}, c.InOrStdin(), s.out.out, s.out.err)
			if err != nil {
				return err
			}
			if code != 0 {
				return &ExitError{code}
			}
			return nil
		},
	}
	c.Flags().StringVarP(&namespace, "namespace", "n", "default", "namespace of the workload")
	c.Flags().SetInterspersed(false)
	return c
}

func (s *session) restartCommand() *cobra.Command {
	var namespace string
	c := &cobra.Command{
		Use:     "restart WORKLOAD...",
		Short:   "Replace a workload's instances one by one, without losing a request",
		Example: "  weft restart reviews-v1 reviews-v2 reviews-v3",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			client := s.client()
			defer client.Close()
			for _, a := range args {
				ns, name := splitName(a, namespace)
				if err := client.Restart(c.Context(), ns, name); err != nil {
					return err
				}
				s.out.printf("%s/%s restarting\n", ns, name)
			}
			return nil
		},
	}
	c.Flags().StringVarP(&namespace, "namespace", "n", "default", "namespace of the workloads")
	return c
}
