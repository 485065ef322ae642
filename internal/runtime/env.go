package runtime

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/weftmesh/weft/internal/identity"
	"github.com/weftmesh/weft/internal/runtime/demand"
	"github.com/weftmesh/weft/internal/wire"
)

// inherited are the variables that a process takes from weft's own environment. Others (proxies, tokens) are the user's, not the
// workload's; a manifest names what it needs.
var inherited = []string{"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "LD_LIBRARY_PATH"}

// environment is an ordered set of variables.
type environment struct {
	names  []string
	values map[string]string
}

func (e *environment) set(name, value string) {
	if _, ok := e.values[name]; !ok {
		e.names = append(e.names, name)
	}
	e.values[name] = value
}

func (e *environment) lookup(name string) (string, bool) { v, ok := e.values[name]; return v, ok }

func (e *environment) list() []string {
	var out []string
	for _, n := range e.names {
		out = append(out, n+"="+e.values[n])
	}
	return out
}

// expand replaces $(NAME) by its value; $$ stands for $, and an unknown name stays as written (core/v1 EnvVar.value).
func expand(s string, lookup func(string) (string, bool)) string {
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '$' || i+1 == len(s) {
			out.WriteByte(s[i])
			continue
		}
		end := strings.IndexByte(s[i:], ')')
		switch {
		case s[i+1] == '$':
			out.WriteByte('$')
			i++
		case s[i+1] == '(' && end > 0:
			name := s[i+2 : i+end]
			if v, ok := lookup(name); ok {
				out.WriteString(v)
			} else {
				out.WriteString(s[i : i+end+1])
			}
			i += end
		default:
			out.WriteByte('$')
		}
	}
	return out.String()
}

// base is what every process of the pod has.
func (p *pod) base() *environment {
	e := &environment{values: map[string]string{}}
	for _, name := range inherited {
		if v, ok := os.LookupEnv(name); ok {
			e.set(name, v)
		}
	}
	e.set("HOSTNAME", p.Name)
	return e
}

// env is a container's environment: inherited, services, ports, then its own, which may refer to those before.
func (p *pod) env(c *demand.Container) *environment {
	e := p.base()
	for _, kv := range p.serviceEnv {
		name, value, _ := strings.Cut(kv, "=")
		e.set(name, value)
	}
	if p.plan != nil {
		p.plan.env(c, e)
	}
	view := p.object()
	for _, v := range c.Env {
		if v.ValueFrom != nil && v.ValueFrom.FieldRef != nil {
			value, _ := demand.FieldValue(v.ValueFrom.FieldRef.FieldPath, view) // compile refused unknown ones
			e.set(v.Name, value)
			continue
		}
		e.set(v.Name, expand(v.Value, e.lookup))
	}
	return e
}

// envName is a service's name in variables: details-v1 is DETAILS_V1.
func envName(service string) string { return strings.ToUpper(strings.ReplaceAll(service, "-", "_")) }

// serviceEnv tells a pod the services of its namespace, as the kubelet does: by virtual address, or in ports mode by the
// sidecar's listener for each. mu is held.
func (r *Runtime) serviceEnv(p *pod) []string {
	var out []string
	for _, s := range r.services {
		if s.Namespace != p.Namespace || len(s.Spec.Ports) == 0 || s.Spec.ClusterIP == "" || s.Spec.ClusterIP == corev1.ClusterIPNone {
			continue
		}
		name, host := envName(s.Name), s.Spec.ClusterIP
		for i, port := range s.Spec.Ports {
			n := uint16(port.Port)
			if r.mode == Ports {
				var ok bool
				if n, ok = p.plan.outbound[outboundKey{keyOf(s), uint16(port.Port)}]; !ok {
					continue
				}
				host = "127.0.0.1"
			}
			if i == 0 {
				out = append(out, name+"_SERVICE_HOST="+host, name+"_SERVICE_PORT="+strconv.Itoa(int(n)))
			}
			if port.Name != "" {
				out = append(out, name+"_SERVICE_PORT_"+envName(port.Name)+"="+strconv.Itoa(int(n)))
			}
		}
	}
	return out
}

// locate finds a command and the folder that it starts in, as a workload sees them.
func (r *Runtime) locate(command, dir string, env func(string) (string, bool)) (path, at string, err error) {
	if at, err = r.workingDir(dir); err != nil {
		return "", "", err
	}
	if err := r.visible("working directory", at); err != nil {
		return "", "", err
	}
	if fi, err := os.Stat(at); err != nil {
		return "", "", fmt.Errorf("working directory: %w", err)
	} else if !fi.IsDir() {
		return "", "", fmt.Errorf("working directory %s is not a folder", at)
	}
	if path, err = r.lookCommand(command, at, env); err != nil {
		return "", "", err
	}
	return path, at, r.visible("command", path)
}

// workingDir is where a process starts: relative folders are below the manifest's.
func (r *Runtime) workingDir(dir string) (string, error) {
	if filepath.IsAbs(dir) {
		return dir, nil
	}
	if len(r.opt.CommandDirs) > 0 {
		dir = filepath.Join(r.opt.CommandDirs[0], dir)
	}
	return filepath.Abs(dir)
}

// lookCommand finds a program: an absolute path as it is; a relative one in its working folder and the command folders; a bare
// name in the command folders and PATH.
func (r *Runtime) lookCommand(name, dir string, env func(string) (string, bool)) (string, error) {
	if name == "" {
		return "", errors.New("command is empty")
	}
	if filepath.IsAbs(name) {
		return name, executable(name)
	}
	var dirs []string
	if strings.Contains(name, "/") {
		dirs = append(dirs, dir)
	}
	dirs = append(dirs, r.opt.CommandDirs...)
	if !strings.Contains(name, "/") {
		path, _ := env("PATH")
		dirs = append(dirs, filepath.SplitList(path)...)
	}
	for _, d := range dirs {
		p, err := filepath.Abs(filepath.Join(d, name))
		if err == nil && executable(p) == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("command %q is not found in %s", name, strings.Join(dirs, ":"))
}

// visible refuses a path within a folder that workloads see empty.
func (r *Runtime) visible(what, path string) error {
	if r.mode != Netns {
		return nil
	}
	real := resolved(path)
	for _, h := range r.opt.Hidden {
		if rel, err := filepath.Rel(resolved(h), real); err == nil && filepath.IsLocal(rel) {
			return fmt.Errorf("%s %s is inside %s, which the mesh hides from workloads", what, path, h)
		}
	}
	return nil
}

// resolved is a path without symbolic links, as far as it exists.
func resolved(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	return filepath.Clean(path)
}

func executable(path string) error {
	fi, err := os.Stat(path)
	if err != nil {
		return err
	}
	if fi.IsDir() || fi.Mode()&0o111 == 0 {
		return &fs.PathError{Op: "exec", Path: path, Err: fs.ErrPermission}
	}
	return nil
}

// peer is who the pod is to the certificate authority.
func (p *pod) peer() identity.Peer {
	l := p.w.Labels
	return identity.Peer{
		ID:       identity.ID{TrustDomain: p.rt.opt.TrustDomain, Namespace: p.Namespace, ServiceAccount: p.w.Account},
		Workload: p.w.Name, Instance: p.Name, App: l["app"], Version: l["version"], Cluster: p.rt.opt.Cluster,
		Service:  firstOf(l["service.istio.io/canonical-name"], l["app.kubernetes.io/name"], l["app"], p.w.Name),
		Revision: firstOf(l["service.istio.io/canonical-revision"], l["app.kubernetes.io/version"], l["version"], "latest"),
	}
}

func firstOf(values ...string) string {
	i := slices.IndexFunc(values, func(v string) bool { return v != "" })
	return values[i]
}

// bootstrap is what the pod's proxy is told at its start.
func (p *pod) bootstrap() (*wire.Bootstrap, error) {
	o := p.rt.opt
	roots, err := o.Roots()
	if err != nil {
		return nil, fmt.Errorf("root certificates: %w", err)
	}
	token, err := o.Token(p.peer())
	if err != nil {
		return nil, fmt.Errorf("token: %w", err)
	}
	b := &wire.Bootstrap{
		Node: wire.Node{
			Role: wire.Sidecar, Name: p.Name, Namespace: p.Namespace, ServiceAccount: p.w.Account, Workload: p.w.Name,
			IP: p.ip.String(), Labels: p.w.Labels, Cluster: o.Cluster,
		},
		Control: o.Control, TrustDomain: o.TrustDomain, Roots: roots, Token: token,
		StateDir:    filepath.Join(o.StateDir, "proxies", p.Namespace, p.w.Name, strconv.Itoa(p.slot)),
		AdminSocket: p.adminSocket(), Broker: p.brokerSocket(), RegistryOnly: o.RegistryOnly, DrainSeconds: int(o.DrainTime.Seconds()),
		ServiceNetwork: o.ServiceCIDR.String(), UpgradeSocket: p.upgradeSocket(), UpgradeDrainSeconds: int(fadeTime.Seconds()),
	}
	if o.AccessLog {
		b.AccessLog = "stdout"
	}
	if err := os.MkdirAll(b.StateDir, 0o700); err != nil {
		return nil, err
	}
	local := func(port uint16) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))) }
	if p.w.Gateway {
		b.Node.Role = wire.Gateway
	}
	if p.plan != nil {
		p.plan.bootstrap(b)
		return b, nil
	}
	b.Admin, b.Mark, b.SelfMark = local(wire.MetricsPort), wire.SidecarMark, wire.SelfMark
	b.PodNetwork, b.HostAlias = o.PodCIDR.String(), p.rt.ips.Host().String()
	if !p.w.Gateway {
		b.Outbound, b.Inbound, b.DNS = local(wire.OutboundPort), "0.0.0.0:"+strconv.Itoa(wire.InboundPort), local(wire.DNSPort)
	}
	return b, nil
}
