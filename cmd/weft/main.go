// Command weft starts a mesh on this machine and talks to it. See weft --help.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/weftmesh/weft/internal/api"
	"github.com/weftmesh/weft/internal/cli"
	"github.com/weftmesh/weft/internal/control/compile"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/local"
	"github.com/weftmesh/weft/internal/runtime"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == runtime.PodHostCommand {
		os.Exit(runtime.PodHostMain(os.Args[2:]))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	go func() { // ends with the process
		<-ctx.Done()
		// From now on a second signal ends the process at once; the pod host's death removes everything. Some programs (GNU
		// timeout, shells) deliver one request twice, so signals that come together count as one.
		time.Sleep(time.Second)
		stop()
	}()
	os.Exit(cli.Main(ctx, os.Args[1:], cli.Programs{Up: up, Control: runControl}, os.Stdin, os.Stdout, os.Stderr))
}

// trustDomain of local meshes; Istio's default, so that its users' policies hold.
const trustDomain = "cluster.local"

func up(ctx context.Context, o cli.UpOptions) error {
	log, err := local.NewLogger(o.LogOutput, o.LogLevel)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	proxy, err := findProxy(filepath.Dir(self))
	if err != nil {
		return err
	}
	ttl, err := time.ParseDuration(o.CertTTL)
	if err != nil || ttl < 2*time.Second {
		return fmt.Errorf("cert-ttl %q: want a duration of at least 2s, such as 24h", o.CertTTL)
	}
	settings, err := meshSettings(o)
	if err != nil {
		return err
	}
	return addressInUse(local.Up(ctx, local.Options{
		Mesh: o.Mesh, Paths: o.Paths, StateDir: o.StateDir, RunDir: o.RunDir,
		ProxyBinary: proxy, CommandDirs: commandDirs(o.Paths, filepath.Dir(self)), Images: o.Images,
		Isolation: o.Isolation, PublishAddress: o.PublishAddress, Publish: o.Publish,
		XDSAddress: listenAddress(o.XDSAddress), MetricsAddress: listenAddress(o.MetricsAddress),
		Settings: settings, CertTTL: ttl, Log: log,
	}), "--metrics-address, --xds-address or --publish; or stop what has it")
}

// addressInUse says how to choose another address where one is taken.
func addressInUse(err error, options string) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return &api.InvalidError{Message: err.Error(), Hint: "choose another one with " + options}
	}
	return err
}

// meshSettings joins the flags and the file with the mesh's settings.
func meshSettings(o cli.UpOptions) (model.Settings, error) {
	s := model.Settings{TrustDomain: trustDomain, RegistryOnly: o.RegistryOnly, AccessLog: o.AccessLog}
	if o.MeshConfig == "" {
		return s, nil
	}
	text, err := os.ReadFile(o.MeshConfig)
	if err != nil {
		return s, fmt.Errorf("mesh settings: %w", err)
	}
	s, err = compile.ReadSettings(o.MeshConfig, text, s)
	s.RegistryOnly = s.RegistryOnly || o.RegistryOnly
	return s, err
}

// listenAddress is empty for "none".
func listenAddress(s string) string {
	if s == "none" {
		return ""
	}
	return s
}

// findProxy looks beside weft, then in PATH.
func findProxy(dir string) (string, error) {
	beside := filepath.Join(dir, "weft-proxy")
	if info, err := os.Stat(beside); err == nil && info.Mode()&0o111 != 0 {
		return beside, nil
	}
	path, err := exec.LookPath("weft-proxy")
	if err != nil {
		return "", fmt.Errorf("weft-proxy is neither beside weft (%s) nor in PATH; make build makes both", dir)
	}
	return path, nil
}

// commandDirs are where a manifest's relative commands are looked up: beside the manifests, then beside weft.
func commandDirs(paths []string, self string) []string {
	var dirs []string
	for _, p := range paths {
		if info, err := os.Stat(p); err == nil && !info.IsDir() {
			p = filepath.Dir(p)
		}
		dirs = append(dirs, p)
	}
	return append(dirs, self)
}
