package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/weftmesh/weft/internal/api"
	"github.com/weftmesh/weft/internal/control"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
	"github.com/weftmesh/weft/internal/control/status"
	"github.com/weftmesh/weft/internal/explain"
	"github.com/weftmesh/weft/internal/offline"
)

// Host is what the part of the API that speaks of configuration needs.
type Host interface {
	// Ready gives the running control plane once it has read its objects.
	Ready(ctx context.Context) (*control.Control, error)
	// Findings are those about objects that are not the control plane's own.
	Findings(c *control.Control) []model.Finding
	// Inside gives a URL as the gateway hears it that a request from somewhere passes.
	Inside(mesh *model.Mesh, from, raw string) string
	// Virtual says that addresses of services lead nowhere but through sidecars.
	Virtual() bool
	// Ejected asks the proxy of a workload's instance which endpoints it has ejected, and why; nil where it cannot be asked.
	Ejected(ctx context.Context, w *model.Workload) map[explain.Ejected]string
	// Addresses are those of the ingress gateway, where no Service tells them.
	Addresses() []string
}

// Objects serves the part of the API that speaks of configuration. Kept gives the status that is kept of an object where several control
// planes share it, so that all of them tell the same times; nil for none. It may be nil itself.
func Objects(h Host, kept func(*source.Object) status.Status) api.Objects {
	return objects{h, &statuses{kept: kept}}
}

type objects struct {
	h    Host
	told *statuses
}

// control gives the running control plane.
func (m *Mesh) control() (*control.Control, error) {
	c, state, _ := m.plane.get()
	if c == nil {
		return nil, &api.UnavailableError{Message: "the control plane is not running (" + state + ")", Hint: "weft control start"}
	}
	return c, nil
}

// startWait bounds how long a request waits for a control plane that has just started to read its objects.
const startWait = 10 * time.Second

// Ready implements Host.
func (m *Mesh) Ready(ctx context.Context) (*control.Control, error) {
	c, err := m.control()
	if err != nil {
		return nil, err
	}
	return AwaitMesh(ctx, c)
}

// AwaitMesh waits until a control plane has read its objects, but not for long.
func AwaitMesh(ctx context.Context, c *control.Control) (*control.Control, error) {
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	changes := c.Changes(ctx)
	for c.Mesh() == nil {
		if _, ok := <-changes; !ok {
			return nil, unread(c)
		}
	}
	return c, nil
}

// unread says what a control plane waits for that has not read its objects.
func unread(c *control.Control) error {
	const message = "the control plane has not read its objects yet"
	if sources := c.Waiting(); sources != "" {
		return &api.UnavailableError{Message: message + ": it waits for " + sources, Hint: "weft status says why"}
	}
	return &api.UnavailableError{Message: message, Hint: "try again"}
}

func (o objects) Apply(ctx context.Context, req api.ChangeRequest) (api.ChangeReply, error) {
	c, err := o.h.Ready(ctx)
	if err != nil {
		return api.ChangeReply{}, err
	}
	decoded, findings := decode(req.Documents, req.Namespace)
	if source.HasErrors(findings) {
		findings = source.SortFindings(append(findings, beside(c, req.Documents, req.Namespace)...))
		return api.ChangeReply{Refused: true, Findings: apiFindings(findings)}, nil
	}
	if len(decoded) == 0 && (!req.DryRun || len(findings) == 0) {
		return api.ChangeReply{}, nothing(findings)
	}
	if req.DryRun {
		results, more, err := c.DryRun(decoded)
		return reply(results, append(findings, more...)), err
	}
	if err := ctx.Err(); err != nil { // whoever asked is gone: nothing has been changed yet
		return api.ChangeReply{}, err
	}
	results, more, err := c.Apply(ctx, decoded)
	if err != nil {
		return api.ChangeReply{}, unavailable(err)
	}
	return reply(results, append(findings, more...)), nil
}

// nothing says that there is nothing to apply, and what was left out.
func nothing(findings []model.Finding) error {
	err := &api.InvalidError{Message: "there is no object in what was given"}
	for i, f := range findings {
		if i == 0 {
			err.Message += " that the mesh reads"
		}
		err.Message += "\n  " + f.String()
	}
	return err
}

func reply(results []source.Result, findings []model.Finding) api.ChangeReply {
	r := api.ChangeReply{Refused: source.HasErrors(findings), Findings: apiFindings(source.SortFindings(findings)), Changes: []api.Change{}}
	for _, res := range results {
		r.Changes = append(r.Changes, api.Change{Object: keyRef(res.Key), Action: string(res.Action)})
	}
	return r
}

// textOf is a document that is to be applied, in a namespace if one was said.
func textOf(d api.Document, namespace string) source.Text {
	return source.Text{Layer: source.LayerApplied, File: d.Name, Namespace: namespace}
}

func decode(docs []api.Document, namespace string) (all []*source.Object, findings []model.Finding) {
	for _, d := range docs {
		os, fs := textOf(d, namespace).Decode(d.Content)
		all, findings = append(all, os...), append(findings, fs...)
	}
	return all, findings
}

// beside gives what there is to say of documents beside what is wrong with the shape of some: of all objects together where each of them
// can be read well enough, else of each by itself.
func beside(c *control.Control, docs []api.Document, namespace string) []model.Finding {
	var all, drafts []*source.Object
	whole := true
	for _, d := range docs {
		objects, more, ok, _ := textOf(d, namespace).Drafts(d.Content)
		all, drafts, whole = append(append(all, objects...), more...), append(drafts, more...), whole && ok
	}
	return source.BesideShape(c.Judge(all, whole), drafts)
}

func (o objects) Delete(ctx context.Context, req api.ChangeRequest) (api.ChangeReply, error) {
	c, err := o.h.Ready(ctx)
	if err != nil {
		return api.ChangeReply{}, err
	}
	keys, findings := namedKeys(req.Documents, req.Namespace)
	if source.HasErrors(findings) {
		return api.ChangeReply{Refused: true, Findings: apiFindings(findings)}, nil
	}
	applied := c.Applied() // refused ones too, which are not among the objects in force
	if req.IgnoreNotFound {
		keys = slices.DeleteFunc(keys, func(k source.Key) bool { return c.Get(k) == nil && !slices.Contains(applied, k) })
	}
	for _, r := range req.Refs {
		key, err := lookup(append(keysOf(c.Objects()), applied...), r)
		if err != nil && req.IgnoreNotFound {
			continue
		}
		if err != nil {
			return api.ChangeReply{}, err
		}
		keys = append(keys, key)
	}
	for _, k := range applied {
		if req.All || req.AllIn != "" && k.Namespace == req.AllIn {
			keys = append(keys, k)
		}
	}
	results, err := c.Delete(ctx, keys)
	if errors.Is(err, source.ErrNotFound) {
		return api.ChangeReply{}, &api.NotFoundError{Message: err.Error(), Hint: notDeleted(err)}
	} else if err != nil {
		return api.ChangeReply{}, unavailable(err)
	}
	return reply(results, findings), nil
}

// namedKeys gives what documents name, each object once.
func namedKeys(docs []api.Document, namespace string) (keys []source.Key, findings []model.Finding) {
	for _, d := range docs {
		more, fs := textOf(d, namespace).Keys(d.Content)
		findings = append(findings, fs...)
		for _, k := range more {
			if !slices.Contains(keys, k) {
				keys = append(keys, k)
			}
		}
	}
	return keys, findings
}

// notDeleted says what to do about an object that cannot be deleted.
func notDeleted(err error) string {
	var not *source.NotAppliedError
	if !errors.As(err, &not) || not.Object.Origin.Layer != source.LayerRuntime {
		return "weft get lists the objects and where they are from"
	}
	k := not.Object.Key()
	if labels := not.Object.GetLabels(); k.Kind != "Service" || len(labels) != 1 || labels["app"] != k.Name { // as runtime.ProgramSpec makes them
		return "end its program with weft delete program NAME, or remove its workload from the files or objects that name it; weft ps lists what runs"
	}
	command := "weft delete program " + k.Name
	if k.Namespace != source.DefaultNamespace {
		command += " -n " + k.Namespace
	}
	return "it is of a program that was run: " + command
}

// unavailable says so of a control plane that ended meanwhile.
func unavailable(err error) error {
	if errors.Is(err, control.ErrEnded) {
		return &api.UnavailableError{Message: err.Error(), Hint: "try again once it runs: weft status"}
	}
	return err
}

func keysOf(objects []*source.Object) []source.Key {
	keys := make([]source.Key, len(objects))
	for i, o := range objects {
		keys[i] = o.Key()
	}
	return keys
}

// lookup finds an object by a kind as people write it. Kinds that are in no namespace are found from any, and "my.ext" is an object of
// that name where namespace ext has no "my".
func lookup(all []source.Key, r api.Ref) (source.Key, error) {
	whole := r.Name + "." + r.Namespace
	for _, is := range []func(k source.Key) bool{
		func(k source.Key) bool { return k.Name == r.Name && k.Namespace == r.Namespace },
		func(k source.Key) bool { return k.Name == r.Name && k.Namespace == "" },
		func(k source.Key) bool { return k.Name == whole && (k.Namespace == "" || k.Namespace == "default") },
	} {
		for _, k := range all {
			if is(k) && api.KindMatches(k.Kind, r.Kind) {
				return k, nil
			}
		}
	}
	return source.Key{}, &api.NotFoundError{Message: fmt.Sprintf("no %s %q in namespace %q", r.Kind, r.Name, r.Namespace), Hint: "weft get lists the objects"}
}

func (o objects) Objects(ctx context.Context, of api.Selection) ([]api.Object, error) {
	c, err := o.h.Ready(ctx)
	if err != nil {
		return nil, err
	}
	byRef := map[model.Ref][]model.Finding{}
	findings := append(o.h.Findings(c), c.Findings()...)
	for _, f := range findings {
		byRef[f.Object] = append(byRef[f.Object], f)
	}
	explainKept(byRef, findings)
	var out []api.Object
	all := c.Objects()
	told := map[source.Key]status.Status{}
	if mesh := c.Mesh(); mesh != nil {
		told = o.told.now(status.Input{Objects: all, Mesh: mesh, Findings: findings, Addresses: o.h.Addresses(),
			Only: func(ob *source.Object) bool { return of.Has(keyRef(ob.Key())) }})
	}
	for _, ob := range all {
		if !of.Has(keyRef(ob.Key())) {
			delete(byRef, ob.Ref())
			continue
		}
		out = append(out, api.Object{
			Ref: keyRef(ob.Key()), APIVersion: ob.Kind.APIVersion(), Source: origin(ob.Origin), Created: ob.Born,
			YAML: withStatus(ob, told[ob.Key()]), Findings: apiFindings(byRef[ob.Ref()]),
		})
		delete(byRef, ob.Ref())
	}
	for _, r := range refused(byRef, c.Refused()) {
		if of.Has(r.Ref) {
			out = append(out, r)
		}
	}
	return out, nil
}

// explainKept adds to what is said of an object that is in force as it was before, why that is: what is wrong in the document of its file
// may be such that nobody can tell which object it is about.
func explainKept(byRef map[model.Ref][]model.Finding, all []model.Finding) {
	type place struct {
		file string
		line int
	}
	wrong := map[place][]model.Finding{}
	for _, f := range all {
		if f.Severity == model.Error && f.File != "" {
			wrong[place{f.File, f.Line}] = append(wrong[place{f.File, f.Line}], f)
		}
	}
	for ref, fs := range byRef {
		for _, kept := range fs {
			if kept.Code != source.CodePreviousKept || ref == (model.Ref{}) {
				continue
			}
			for _, f := range wrong[place{kept.File, kept.Line}] {
				if !slices.Contains(byRef[ref], f) {
					byRef[ref] = append(byRef[ref], f)
				}
			}
		}
	}
}

// refused gives the objects of which nothing is in force, by the findings that say why. What no source has refused, the local runtime has.
func refused(left map[model.Ref][]model.Finding, sources map[model.Ref]source.Origin) (out []api.Object) {
	for _, kind := range source.Kinds() {
		for ref, findings := range left {
			if ref.Kind != kind.RefName() || ref.Name == "" || !source.HasErrors(findings) {
				continue
			}
			from, is := sources[ref]
			if !is {
				from.Layer = source.LayerRuntime
			}
			out = append(out, api.Object{
				Ref: api.Ref{Kind: kind.Name, Namespace: ref.Namespace, Name: ref.Name}, APIVersion: kind.APIVersion(), Refused: true,
				Source: origin(from), Findings: apiFindings(findings),
			})
		}
	}
	return out
}

// document is an object as it was written, or as it would be for one of the runtime.
func document(o *source.Object) string {
	if o.Raw != nil {
		return string(o.Raw)
	}
	raw := marshal(o.Kube)
	if !o.Kube.GetObjectKind().GroupVersionKind().Empty() { // it says so itself
		return string(raw)
	}
	return fmt.Sprintf("apiVersion: %s\nkind: %s\n%s", o.Kind.APIVersion(), o.Kind.Name, raw)
}

// marshal writes a type of Kubernetes' or of a status as YAML.
func marshal(v any) []byte {
	raw, err := yaml.Marshal(v)
	if err != nil { // these types always marshal
		panic(err)
	}
	return raw
}

// origin says in short where an object is from.
func origin(o source.Origin) string {
	switch {
	case o.Layer == source.LayerFile && o.Line > 0:
		return fmt.Sprintf("%s:%d", shortPath(o.File), o.Line)
	case o.Layer == source.LayerFile:
		return shortPath(o.File)
	}
	return o.Layer
}

// shortPath leaves the last two elements of a path.
func shortPath(p string) string {
	parts := strings.Split(p, "/")
	return strings.Join(parts[max(0, len(parts)-2):], "/")
}

func keyRef(k source.Key) api.Ref { return api.Ref{Kind: k.Kind, Namespace: k.Namespace, Name: k.Name} }

func apiFindings(fs []model.Finding) []api.Finding {
	out := offline.Findings(fs)
	slices.SortStableFunc(out, func(a, b api.Finding) int { return cmp.Compare(rank(a.Severity), rank(b.Severity)) })
	return out
}

func rank(severity string) int {
	return slices.Index([]string{api.SeverityError, api.SeverityWarning, api.SeverityInfo}, severity)
}
