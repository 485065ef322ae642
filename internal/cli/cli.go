// Package cli is the command line of weft: flags, output and nothing else. Every command but `up` talks to a running mesh through
// package api; `up` starts one in this process by the function it was given.
package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weftmesh/weft/internal/api"
	"github.com/weftmesh/weft/internal/version"
)

// Programs are what the command line starts in its own process.
type Programs struct {
	// Up runs a mesh until the context ends or the mesh was asked to stop.
	Up func(ctx context.Context, o UpOptions) error
	// Control runs a control plane by itself until the context ends.
	Control func(ctx context.Context, o ControlOptions) error
}

// UpOptions are the settings of `weft up`.
type UpOptions struct {
	Mesh           string
	Paths          []string // files and folders with objects
	StateDir       string
	RunDir         string
	Isolation      string
	PublishAddress string
	Publish        map[uint16]uint16
	XDSAddress     string
	MetricsAddress string
	AccessLog      bool
	RegistryOnly   bool
	MeshConfig     string // a file in the form of Istio's MeshConfig; empty for none
	Images         map[string][]string
	LogLevel       string
	LogOutput      io.Writer
	CertTTL        string
}

// ExitError ends the program with a code of its own, silently: whatever there was to say has been said.
type ExitError struct{ Code int }

func (e *ExitError) Error() string { return fmt.Sprintf("exit status %d", e.Code) }

// session is what one command line carries.
type session struct {
	programs Programs
	mesh     string
	out      *output
}

// Main runs the command line and gives the exit code: 0, 1 for a failure, 2 for wrong usage, or the code of what it ran.
func Main(ctx context.Context, args []string, p Programs, stdin io.Reader, stdout, stderr io.Writer) int {
	s := &session{programs: p, out: newOutput(stdout, stderr)}
	root := s.root()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	ran, err := root.ExecuteContextC(ctx)
	var exit *ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.Code
	case errors.Is(err, context.Canceled):
		return 130
	}
	message, hint := explainError(err, s.mesh)
	var usage *usageError
	if errors.As(err, &usage) || strings.HasPrefix(message, "unknown ") || strings.HasPrefix(message, "required flag(s)") {
		s.out.fail(strings.TrimSpace(message), cmp.Or(hint, "see "+ran.CommandPath()+" --help"))
		return 2
	}
	s.out.fail(message, hint)
	return 1
}

type usageError struct{ error }

func (e *usageError) Unwrap() error { return e.error }

// explainError turns an error into what the user reads: what went wrong, and what to do next.
func explainError(err error, mesh string) (message, hint string) {
	if errors.Is(err, api.ErrNotRunning) {
		if others := running(); len(others) > 0 {
			verb := "is"
			if len(others) > 1 {
				verb = "are"
			}
			return fmt.Sprintf("no mesh called %q is running here; %s %s", mesh, strings.Join(others, " and "), verb),
				"say which one is meant: --mesh " + others[0] + ", or WEFT_MESH=" + others[0]
		}
		if mesh == api.DefaultMesh {
			return "no mesh is running here", "start one: weft up examples/bookinfo"
		}
		return fmt.Sprintf("no mesh called %q is running here", mesh), "start it: weft up --mesh " + mesh + " DIR"
	}
	return err.Error(), api.Hint(err)
}

// running names the meshes that a command could have meant; none where WEFT_SOCKET says which.
func running() []string {
	if os.Getenv("WEFT_SOCKET") != "" {
		return nil
	}
	return api.Running()
}

func (s *session) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "weft",
		Short: "A service mesh for one machine, many machines and Kubernetes",
		Long: `Weft runs your services in a mesh: every call between them passes through a sidecar that
routes it, encrypts it, authorizes it and measures it. Configure it with Istio's and the
Gateway API's own objects.

Exit codes: 0 for success, 1 for a failure or what a command was asked to find (errors, tests that
fail, differences), 2 for wrong usage, 130 when interrupted; that of the program for weft exec.`,
		Example: `  weft up examples/bookinfo           # start Bookinfo in a mesh on this machine
  weft ps                             # what runs
  weft apply -f examples/bookinfo/try/reviews-50-v3.yaml  # change how traffic flows
  weft explain --from productpage GET http://reviews:9080/reviews/0
  weft graph                          # who calls whom, how often, how fast
  weft down                           # stop it`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       version.String(),
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		return &usageError{err}
	})
	mesh := os.Getenv("WEFT_MESH")
	if mesh == "" {
		mesh = api.DefaultMesh
	}
	root.PersistentFlags().StringVar(&s.mesh, "mesh", mesh, "name of the mesh; several can run side by side (also WEFT_MESH)")
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		if err := api.CheckMesh(s.mesh); err != nil {
			return &usageError{err}
		}
		return nil
	}
	root.AddGroup(&cobra.Group{ID: "run", Title: "Run:"}, &cobra.Group{ID: "configure", Title: "Configure:"}, &cobra.Group{ID: "look", Title: "Look:"})
	add := func(group string, cmds ...*cobra.Command) {
		for _, c := range cmds {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add("run", s.upCommand(), s.downCommand(), s.runCommand(), s.execCommand(), s.restartCommand(), s.proxyCommand(), s.controlCommand())
	add("configure", s.applyCommand(), s.deleteCommand(), s.getCommand(), s.analyzeCommand(), s.diffCommand(), s.testCommand())
	add("look", s.psCommand(), s.logsCommand(), s.statusCommand(), s.graphCommand(), s.explainCommand())
	root.InitDefaultCompletionCmd()
	plainUsage(root)
	return root
}

// plainUsage has a command, and those below it, say what they take where they got something else.
func plainUsage(c *cobra.Command) {
	if check := c.Args; check != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			if check(c, args) != nil {
				return &usageError{fmt.Errorf("wrong number of arguments: it is %s", strings.TrimSuffix(c.UseLine(), " [flags]"))}
			}
			return nil
		}
	}
	if !c.Runnable() {
		c.SuggestionsMinimumDistance = 2
		c.RunE = func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return &usageError{fmt.Errorf("unknown command %q for %q%s", args[0], c.CommandPath(), likely(c.SuggestionsFor(args[0])))}
			}
			return c.Help()
		}
		c.Args = cobra.ArbitraryArgs // else the library answers, in its own form
	}
	for _, sub := range c.Commands() {
		plainUsage(sub)
	}
}

// likely says which commands may have been meant.
func likely(commands []string) string {
	switch n := len(commands); n {
	case 0:
		return ""
	case 1:
		return ": did you mean " + commands[0] + "?"
	default:
		return ": did you mean " + strings.Join(commands[:n-1], ", ") + " or " + commands[n-1] + "?"
	}
}

// client gives a client of the mesh that the flags name.
func (s *session) client() *api.Client {
	socket := cmp.Or(os.Getenv("WEFT_SOCKET"), api.SocketPath(s.mesh))
	c := api.NewClient(socket)
	c.Patience.Waiting = func() { fmt.Fprintf(s.out.err, "the mesh at %s does not answer; waiting ...\n", socket) }
	return c
}

// objectName is splitName for objects, whose names may hold dots: where the namespace was said, all of it is the name.
func objectName(c *cobra.Command, s, namespace string) (string, string) {
	if c.Flags().Changed("namespace") && !strings.Contains(s, "/") {
		return namespace, s
	}
	return splitName(s, namespace)
}

// splitName takes "name", "name.namespace" or "namespace/name" apart.
func splitName(s, defaultNamespace string) (namespace, name string) {
	if ns, n, ok := strings.Cut(s, "/"); ok {
		return ns, n
	}
	if n, ns, ok := strings.Cut(s, "."); ok {
		return ns, n
	}
	return defaultNamespace, s
}
