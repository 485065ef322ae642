package runtime

import (
	"context"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/weftmesh/weft/internal/runtime/demand"
	"github.com/weftmesh/weft/internal/runtime/statefile"
)

func notFound(what string, k demand.Key) error { return fmt.Errorf("%s %s: %w", what, k, ErrNotFound) }

// AddProgram adds a program, or replaces the one of the same name, as a Deployment and, when it has a port, a Service. It is kept
// in the state directory until RemoveProgram. Its service account has its name. A command that is not there is an error.
func (r *Runtime) AddProgram(p ProgramSpec) error {
	p.Namespace = demand.NamespaceOf(p.Namespace)
	if msgs := validation.IsDNS1035Label(p.Name); len(msgs) > 0 {
		return fmt.Errorf("program %q: name: %s", p.Name, msgs[0])
	}
	if len(p.Command) == 0 {
		return fmt.Errorf("program %q: command is empty", p.Name)
	}
	if err := r.lookProgram(p); err != nil {
		return fmt.Errorf("program %q: %w", p.Name, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	k := demand.Key{Namespace: p.Namespace, Name: p.Name}
	if _, ours := r.programs[k]; !ours && r.workloads[k] != nil {
		return fmt.Errorf("program %s: a workload of this name exists", k)
	}
	if r.workloads[k] != nil {
		r.restarts[k]++ // the same command again means: start it anew
	}
	r.programs[k] = p
	r.compile()
	return r.savePrograms()
}

// lookProgram finds out whether a program could be started now; later it may still come and go.
func (r *Runtime) lookProgram(p ProgramSpec) error {
	_, _, err := r.locate(p.Command[0], p.Dir, func(name string) (string, bool) {
		if v, ok := p.Env[name]; ok {
			return v, true
		}
		return os.LookupEnv(name)
	})
	return err
}

// RemoveProgram stops and forgets a program; ErrNotFound when there is none.
func (r *Runtime) RemoveProgram(namespace, name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := demand.Key{Namespace: demand.NamespaceOf(namespace), Name: name}
	if _, ok := r.programs[k]; !ok {
		return notFound("program", k)
	}
	delete(r.programs, k)
	r.compile()
	return r.savePrograms()
}

// Programs lists the programs added, by namespace and name.
func (r *Runtime) Programs() []ProgramSpec {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.programList()
}

func (r *Runtime) programList() []ProgramSpec {
	var out []ProgramSpec
	for _, k := range sortedKeys(r.programs) {
		out = append(out, r.programs[k])
	}
	return out
}

func (r *Runtime) programsFile() string { return filepath.Join(r.opt.StateDir, "programs.json") }
func (r *Runtime) savePrograms() error  { return statefile.Write(r.programsFile(), r.programList()) }

func (r *Runtime) loadPrograms() error {
	var list []ProgramSpec
	if err := statefile.Read(r.programsFile(), &list); err != nil {
		return err
	}
	for _, p := range list {
		r.programs[demand.Key{Namespace: p.Namespace, Name: p.Name}] = p
	}
	return nil
}

// objects are what a manifest for the program would say.
func (p ProgramSpec) objects() (*appsv1.Deployment, *corev1.Service) {
	meta := metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name, Labels: map[string]string{"app": p.Name}}
	c := corev1.Container{Name: p.Name, Command: p.Command, WorkingDir: p.Dir}
	for _, name := range slices.Sorted(mapKeys(p.Env)) {
		c.Env = append(c.Env, corev1.EnvVar{Name: name, Value: escape(p.Env[name])})
	}
	c.Command = slices.Clone(p.Command)
	for i := range c.Command {
		c.Command[i] = escape(c.Command[i])
	}
	d := &appsv1.Deployment{ObjectMeta: meta}
	d.Spec.Selector = &metav1.LabelSelector{MatchLabels: meta.Labels}
	d.Spec.Template.Labels = meta.Labels
	d.Spec.Template.Spec = corev1.PodSpec{ServiceAccountName: p.Name}
	if p.Port == 0 {
		d.Spec.Template.Spec.Containers = []corev1.Container{c}
		return d, nil
	}
	c.Ports = []corev1.ContainerPort{{ContainerPort: int32(p.Port)}}
	d.Spec.Template.Spec.Containers = []corev1.Container{c}
	s := &corev1.Service{ObjectMeta: meta}
	s.Spec.Selector = meta.Labels
	s.Spec.Ports = []corev1.ServicePort{{Port: int32(p.Port)}}
	return d, s
}

func mapKeys(m map[string]string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// escape keeps a text from being expanded.
func escape(s string) string {
	out := make([]byte, 0, len(s))
	for i := range len(s) {
		if s[i] == '$' {
			out = append(out, '$')
		}
		out = append(out, s[i])
	}
	return string(out)
}

// Exec runs a command inside a pod: its network (captured by the sidecar), its files, the environment and folder of its first
// container. It returns the command's exit code (128 and the signal's number when a signal ended it, as shells have it), and
// an error when it could not be started or the context ended, which kills it. Streams that are *os.File are handed to it.
func (r *Runtime) Exec(ctx context.Context, namespace, pod string, command []string, stdio Stdio) (int, error) {
	k := demand.Key{Namespace: demand.NamespaceOf(namespace), Name: pod}
	r.mu.Lock()
	p := r.pods[k]
	made := p != nil && p.made && (!p.w.Sidecar || p.sidecarWasUp)
	r.mu.Unlock()
	switch {
	case p == nil:
		return 0, notFound("pod", k)
	case !made:
		return 0, fmt.Errorf("pod %s is not started", k)
	case len(command) == 0:
		return 0, fmt.Errorf("exec in %s: command is empty", k)
	}
	c := &demand.Container{}
	if len(p.w.Apps) > 0 {
		c = &p.w.Apps[0]
	}
	spec, err := p.appSpec(command, c.Dir, p.env(c))
	if err != nil {
		return 0, fmt.Errorf("exec in %s: %w", k, err)
	}
	exit, err := p.exec(ctx, spec, stdio)
	if err != nil {
		return 0, fmt.Errorf("exec in %s: %w", k, err)
	}
	if exit.Signal != 0 {
		return 128 + int(exit.Signal), nil
	}
	return exit.Code, nil
}

// Logs gives the kept lines that match, by time, and with Follow those that come until the context ends. Pods that are gone are
// included, as long as their lines are kept.
func (r *Runtime) Logs(ctx context.Context, sel Selector, opt LogOptions) iter.Seq[LogLine] {
	names := map[string]bool{sel.Name: true}
	r.mu.Lock()
	for k, w := range r.workloads {
		if sel.Name != "" && w.Labels["app"] == sel.Name {
			names[k.Name] = true
		}
	}
	r.mu.Unlock()
	return r.logs.Read(ctx, func(l LogLine) bool {
		return (sel.Namespace == "" || sel.Namespace == l.Namespace) && (sel.Process == "" || sel.Process == l.Process) &&
			(sel.Name == "" || names[l.Workload] || l.Pod == sel.Name)
	}, opt)
}

// Published lists the ports that gateways listen on in the host's network.
func (r *Runtime) Published() []Published { return r.broker.Published() }

// Unpublished lists the gateway ports on which the host does not let us listen.
func (r *Runtime) Unpublished() []Unpublished { return r.broker.Unpublished() }
