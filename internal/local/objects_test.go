package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/weftmesh/weft/internal/api"
	"github.com/weftmesh/weft/internal/control"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
	"github.com/weftmesh/weft/internal/control/status"
)

// TestNotDeletedSaysWhatToDo: what is listed and cannot be deleted is not told to be missing.
func TestNotDeletedSaysWhatToDo(t *testing.T) {
	store, err := source.OpenStore(filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	running := source.NewRuntime()
	meta := func(namespace, name, app string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{"app": app}}
	}
	if err := running.Set([]source.Kube{
		&corev1.Service{ObjectMeta: meta("default", "web", "web")}, &corev1.Service{ObjectMeta: meta("shop", "web", "web")},
		&corev1.Service{ObjectMeta: meta("default", "gateway", "other")}, &corev1.Pod{ObjectMeta: meta("default", "web-0", "web")},
	}); err != nil {
		t.Fatal(err)
	}
	set := source.NewSet(source.Layers{Applied: store, Runtime: running}, nil)
	ended := make(chan error, 1)
	go func() { ended <- set.Run(t.Context()) }() // ends with the test
	t.Cleanup(func() { <-ended; store.Close() })
	<-set.Ready()
	for _, c := range []struct{ kind, namespace, name, hint string }{
		{"Service", "default", "web", "weft delete program web"},
		{"Service", "shop", "web", "weft delete program web -n shop"},
		{"Service", "default", "gateway", "remove its workload"},
		{"Pod", "default", "web-0", "weft delete program NAME"},
		{"Pod", "default", "none", "weft get"},
	} {
		_, err := set.Delete([]source.Key{{Kind: c.kind, Namespace: c.namespace, Name: c.name}})
		if !errors.Is(err, source.ErrNotFound) || !strings.Contains(notDeleted(err), c.hint) {
			t.Errorf("%s %s: %v (%s)", c.kind, c.name, err, notDeleted(err))
		}
	}
}

// TestDocumentsNameTheirKindOnce has objects that programs made, with their kind written in them and without.
func TestDocumentsNameTheirKindOnce(t *testing.T) {
	bare := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "default"}}
	named := bare.DeepCopy()
	named.APIVersion, named.Kind = "v1", "Pod"
	for _, pod := range []*corev1.Pod{bare, named} {
		o, err := source.FromKube(source.LayerRuntime, pod)
		if err != nil {
			t.Fatal(err)
		}
		if text := document(o); strings.Count(text, "apiVersion: v1\n") != 1 || strings.Count(text, "kind: Pod\n") != 1 {
			t.Errorf("not once:\n%s", text)
		}
	}
}

// host has a control plane, and what a local runtime has found.
type host struct {
	Host
	c     *control.Control
	found []model.Finding
}

func (h host) Ready(context.Context) (*control.Control, error) { return h.c, nil }
func (h host) Findings(*control.Control) []model.Finding       { return h.found }
func (h host) Addresses() []string                             { return nil }

// objectsOf gives the objects of a control plane that follows files, and of what is applied to it.
func objectsOf(t *testing.T, paths ...string) (*control.Control, api.Objects) {
	t.Helper()
	c := follow(t, t.TempDir(), paths...)
	return c, Objects(host{c: c}, nil)
}

// follow runs a control plane that follows files, until the test ends, and waits until it has read them.
func follow(t *testing.T, state string, paths ...string) *control.Control {
	t.Helper()
	c, err := control.New(control.Options{StateDir: state, Paths: paths, Address: "-", HTTPAddress: "-", Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	changes := c.Changes(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(t.Context()) }() // ends with the test
	t.Cleanup(func() { <-ended })
	<-changes
	return c
}

func accounts(namespace string, names ...string) (docs []api.Document) {
	for _, n := range names {
		docs = append(docs, api.Document{Name: n, Content: []byte("apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: " + n + ", namespace: " + namespace + "}\n")})
	}
	return docs
}

// TestDeleteIgnoresWhatIsMissing deletes objects of which some are not there: none of them, or those that are.
func TestDeleteIgnoresWhatIsMissing(t *testing.T) {
	c, o := objectsOf(t)
	if _, err := o.Apply(t.Context(), api.ChangeRequest{Documents: accounts("default", "a", "b")}); err != nil {
		t.Fatal(err)
	}
	req := api.ChangeRequest{Documents: accounts("default", "a", "gone"), Refs: []api.Ref{{Kind: "serviceaccount", Namespace: "default", Name: "gone too"}}}
	var missing *api.NotFoundError
	if _, err := o.Delete(t.Context(), req); !errors.As(err, &missing) || len(c.Objects()) != 2 {
		t.Errorf("%v; %d objects left", err, len(c.Objects()))
	}
	req.IgnoreNotFound = true
	if r, err := o.Delete(t.Context(), req); err != nil || len(r.Changes) != 1 || len(c.Objects()) != 1 {
		t.Errorf("%v %+v; %d objects left", err, r.Changes, len(c.Objects()))
	}
}

// TestApplyPassesOver objects of others: it names them and applies the rest, of which there must be some.
func TestApplyPassesOver(t *testing.T) {
	c, o := objectsOf(t)
	budget := api.Document{Name: "budget", Content: []byte("apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {name: b}\n")}
	var nothing *api.InvalidError
	if _, err := o.Apply(t.Context(), api.ChangeRequest{Documents: []api.Document{budget}}); !errors.As(err, &nothing) || !strings.Contains(err.Error(), "PodDisruptionBudget b (line 1)") {
		t.Errorf("alone: %v", err)
	}
	r, err := o.Apply(t.Context(), api.ChangeRequest{Documents: []api.Document{budget}, DryRun: true})
	if err != nil || r.Refused || len(r.Findings) != 1 || r.Findings[0].Code != api.CodeLeftOut {
		t.Errorf("alone, tried: %v %+v", err, r)
	}
	r, err = o.Apply(t.Context(), api.ChangeRequest{Documents: append(accounts("default", "a"), budget)})
	if err != nil || r.Refused || len(r.Changes) != 1 || len(r.Findings) != 1 || r.Findings[0].Code != api.CodeLeftOut || len(c.Objects()) != 1 {
		t.Errorf("beside another: %v %+v", err, r)
	}
}

// TestNamespaceOfARequest holds for applying, comparing and deleting alike: objects that name none are of it, and none may name another.
func TestNamespaceOfARequest(t *testing.T) {
	c := serving(t)
	o := objects{bench{c}, &statuses{}}
	nameless := []api.Document{{Name: "in.yaml", Content: []byte("apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a}\n")}}
	for _, docs := range [][]api.Document{nameless, accounts("shop", "b")} {
		if r, err := o.Apply(t.Context(), api.ChangeRequest{Documents: docs, Namespace: "shop"}); err != nil || r.Refused || r.Changes[0].Object.Namespace != "shop" {
			t.Errorf("%v %+v", err, r)
		}
	}
	others := accounts("default", "c")
	a, err1 := o.Apply(t.Context(), api.ChangeRequest{Documents: others, Namespace: "shop"})
	x, err2 := o.Delete(t.Context(), api.ChangeRequest{Documents: others, Namespace: "shop"})
	d, err3 := o.Diff(t.Context(), api.DiffRequest{Documents: others, Namespace: "shop"})
	for _, fs := range [][]api.Finding{a.Findings, x.Findings, d.Findings} {
		if len(fs) != 1 || fs[0].Code != "OtherNamespace" || fs[0].Line != 3 {
			t.Errorf("%+v", fs)
		}
	}
	if err := errors.Join(err1, err2, err3); err != nil || !a.Refused || !x.Refused || !d.Refused {
		t.Error(err, a, x, d)
	}
	if r, err := o.Delete(t.Context(), api.ChangeRequest{Documents: nameless, Namespace: "shop"}); err != nil || len(r.Changes) != 1 || r.Changes[0].Object.Namespace != "shop" {
		t.Errorf("%v %+v", err, r)
	}
}

// TestDeleteWantsNamesOnly: what else is in the documents, or wrong with it, does not matter.
func TestDeleteWantsNamesOnly(t *testing.T) {
	c, o := objectsOf(t)
	if _, err := o.Apply(t.Context(), api.ChangeRequest{Documents: accounts("default", "a", "b", "c")}); err != nil {
		t.Fatal(err)
	}
	doc := func(text string) []api.Document { return []api.Document{{Name: "in.yaml", Content: []byte(text)}} }
	const head = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: %s}\n"
	for _, text := range []string{": [", "kind: ServiceAccount\nmetadata: {name: b}\n", "apiVersion: v1\nkind: ServiceAcount\nmetadata: {name: b}\n", "apiVersion: v1\nkind: ServiceAccount\n"} {
		if r, err := o.Delete(t.Context(), api.ChangeRequest{Documents: doc(fmt.Sprintf(head, "a") + "---\n" + text)}); err != nil || !r.Refused || len(c.Objects()) != 3 {
			t.Errorf("%q: %v %+v; %d objects left", text, err, r, len(c.Objects()))
		}
	}
	text := fmt.Sprintf(head+"sepc: 7\n---\n"+head+"---\n"+head, "a", "b", "b") + "---\napiVersion: batch/v1\nkind: Job\nmetadata: {name: j}\n"
	r, err := o.Delete(t.Context(), api.ChangeRequest{Documents: doc(text)})
	if err != nil || r.Refused || len(r.Changes) != 2 || len(r.Findings) != 1 || r.Findings[0].Code != api.CodeLeftOut || len(c.Objects()) != 1 {
		t.Errorf("%v %+v; %d objects left", err, r, len(c.Objects()))
	}
}

// TestDeleteAllOfANamespace leaves alone what is in others, and in none.
func TestDeleteAllOfANamespace(t *testing.T) {
	c, o := objectsOf(t)
	class := api.Document{Name: "class", Content: []byte("apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {name: c}\nspec: {controller: x}\n")}
	docs := append(append(accounts("default", "a"), accounts("shop", "b", "c")...), class)
	if r, err := o.Apply(t.Context(), api.ChangeRequest{Documents: docs}); err != nil || r.Refused {
		t.Fatal(err, r.Findings)
	}
	for _, d := range []struct {
		req           api.ChangeRequest
		deleted, left int
	}{{api.ChangeRequest{AllIn: "none"}, 0, 4}, {api.ChangeRequest{AllIn: "shop"}, 2, 2}, {api.ChangeRequest{All: true}, 2, 0}} {
		if r, err := o.Delete(t.Context(), d.req); err != nil || len(r.Changes) != d.deleted || len(c.Objects()) != d.left {
			t.Errorf("%+v: %v %+v; %d objects left", d.req, err, r.Changes, len(c.Objects()))
		}
	}
}

// TestRefusedObjectsAreShown: one of which nothing is in force, beside one whose last change was refused and which is.
func TestRefusedObjectsAreShown(t *testing.T) {
	const bad = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: bad}\nspec: {hosts: [x.example.com], http: [{match: [{uri: {regex: (}}], directResponse: {status: 200}}]}\n"
	file := filepath.Join(t.TempDir(), "bad.yaml")
	if err := os.WriteFile(file, []byte(bad+"---\n"+strings.ReplaceAll(strings.ReplaceAll(bad, "bad", "good"), "(", "a")), 0o644); err != nil {
		t.Fatal(err)
	}
	_, o := objectsOf(t, file)
	all, err := o.Objects(t.Context(), api.Selection{})
	if err != nil || len(all) != 2 {
		t.Fatalf("%v: %+v", err, all)
	}
	for _, got := range all {
		if refused := got.Name == "bad"; got.Refused != refused || (got.YAML == "") != refused || (len(got.Findings) > 0) != refused ||
			got.Kind != "VirtualService" || !strings.Contains(got.Source, "bad.yaml:") {
			t.Errorf("%+v", got)
		}
	}
}

// TestSelectedObjects: what is not asked for is not looked at, and keeps the times that were told of it.
func TestSelectedObjects(t *testing.T) {
	const rules = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: a}\nspec: {host: a}\n---\n" +
		"apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: b, namespace: shop}\nspec: {host: b}\n---\n" +
		"apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: bad}\nspec: {hots: []}\n"
	file := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(file, []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	asked := map[string]int{}
	o := Objects(host{c: follow(t, t.TempDir(), file)}, func(ob *source.Object) status.Status { asked[ob.GetName()]++; return nil })
	for _, c := range []struct {
		of   api.Selection
		want []string
	}{
		{api.Selection{Patterns: []api.Pattern{{Kind: "dr", Name: "a"}}}, []string{"a"}},
		{api.Selection{Patterns: []api.Pattern{{Kind: "vs"}, {Kind: "dr", Name: "shop/b"}}}, []string{"b", "bad"}},
		{api.Selection{Namespace: "shop"}, []string{"b"}},
		{api.Selection{Patterns: []api.Pattern{{Kind: "gw"}}}, nil},
		{api.Selection{}, []string{"a", "b", "bad"}},
	} {
		clear(asked)
		all, err := o.Objects(t.Context(), c.of)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, ob := range all {
			names = append(names, ob.Name)
			if strings.Contains(ob.YAML, "\nstatus:") != !ob.Refused {
				t.Errorf("%+v: %s", c.of, ob.YAML)
			}
		}
		if slices.Sort(names); !slices.Equal(names, c.want) {
			t.Errorf("%+v: got %v, want %v", c.of, names, c.want)
		}
		for name := range asked {
			if !slices.Contains(c.want, name) {
				t.Errorf("%+v: the status of %s was looked for", c.of, name)
			}
		}
	}
}

const badService = "apiVersion: v1\nkind: Service\nmetadata: {name: %s}\nspec: {sepc: {}}\n"

// refusedBefore gives a state folder to which an earlier release has applied what this one refuses.
func refusedBefore(t *testing.T, names ...string) (state string) {
	t.Helper()
	state = t.TempDir()
	db, err := bolt.Open(filepath.Join(state, "objects.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucket([]byte("objects"))
		if err != nil {
			return err
		}
		for _, name := range names {
			record, err := json.Marshal(map[string]any{"raw": fmt.Appendf(nil, badService, name), "file": "some/applied.yaml", "line": 3})
			if err != nil {
				return err
			}
			if err := b.Put(fmt.Appendf(nil, `{"Kind": "Service", "Namespace": "default", "Name": %q}`, name), record); err != nil {
				return err
			}
		}
		return nil
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	return state
}

// TestDeleteRefused takes away what was applied and is refused: by name, by a file that is accepted, and with everything.
func TestDeleteRefused(t *testing.T) {
	state := refusedBefore(t, "a", "b", "c", "d")
	o := Objects(host{c: follow(t, state)}, nil)
	good := api.Document{Name: "b.yaml", Content: []byte("apiVersion: v1\nkind: Service\nmetadata: {name: b}\nspec: {ports: [{port: 80}]}\n")}
	for _, d := range []struct {
		req  api.ChangeRequest
		left int
	}{
		{api.ChangeRequest{Refs: []api.Ref{{Kind: "svc", Namespace: "default", Name: "a"}}}, 3},
		{api.ChangeRequest{Documents: []api.Document{good}, IgnoreNotFound: true}, 2},
		{api.ChangeRequest{AllIn: "shop"}, 2},
		{api.ChangeRequest{AllIn: "default"}, 0},
	} {
		_, err := o.Delete(t.Context(), d.req)
		all, failed := o.Objects(t.Context(), api.Selection{})
		if err = errors.Join(err, failed); err != nil || len(all) != d.left {
			t.Errorf("%+v: %v; %d objects left", d.req, err, len(all))
		}
	}
}

// TestKeptObjectsSayWhy: what is wrong with a document that does not even say which object it is about is said of those that stay for it.
func TestKeptObjectsSayWhy(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a.yaml")
	write := func(text string) {
		t.Helper()
		if err := errors.Join(os.WriteFile(file+".new", []byte(text), 0o644), os.Rename(file+".new", file)); err != nil {
			t.Fatal(err)
		}
	}
	const head = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a}\n"
	write(head)
	c, o := objectsOf(t, file)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	changes := c.Changes(ctx)
	write("\n" + head + ": [\n")
	for range changes {
		all, err := o.Objects(ctx, api.Selection{})
		if err != nil || len(all) != 1 {
			t.Fatalf("%v: %+v", err, all)
		}
		var codes []string
		for _, f := range all[0].Findings {
			codes = append(codes, f.Code)
		}
		if slices.Equal(codes, []string{"SyntaxError", "PreviousKept"}) {
			return
		}
		t.Log(codes)
	}
	t.Error("it is not said")
}

// TestRefusedObjectsAreFrom what those in force would be from: also one that was applied, of which the database knows the file as well.
func TestRefusedObjectsAreFrom(t *testing.T) {
	state, file := refusedBefore(t, "applied", "both"), filepath.Join(t.TempDir(), "bad.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, badService+"---\n"+badService, "file", "both"), 0o600); err != nil {
		t.Fatal(err)
	}
	running := model.Finding{Severity: model.Error, Code: "LocalRuntime", Object: model.Ref{Kind: "Service", Namespace: "default", Name: "running"}}
	all, err := Objects(host{c: follow(t, state, file), found: []model.Finding{running}}, nil).Objects(t.Context(), api.Selection{})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, o := range all {
		got[o.Name] = o.Source
		if !o.Refused {
			t.Errorf("%s is not refused", o.Name)
		}
	}
	if want := map[string]string{"applied": "applied", "both": "applied", "file": shortPath(file) + ":4", "running": "runtime"}; !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestLookup finds objects by the names that people give: also of kinds without a namespace, and names with dots.
func TestLookup(t *testing.T) {
	all := []source.Key{
		{Kind: "GatewayClass", Name: "weft"}, {Kind: "ServiceEntry", Namespace: "default", Name: "my.ext"},
		{Kind: "ServiceEntry", Namespace: "ext", Name: "other"}, {Kind: "ServiceEntry", Namespace: "default", Name: "other.ext"},
	}
	for _, c := range []struct {
		asked api.Ref
		want  string
	}{
		{api.Ref{Kind: "gatewayclass", Namespace: "default", Name: "weft"}, "/weft"},
		{api.Ref{Kind: "se", Namespace: "default", Name: "my.ext"}, "default/my.ext"},
		{api.Ref{Kind: "se", Namespace: "ext", Name: "my"}, "default/my.ext"},
		{api.Ref{Kind: "se", Namespace: "ext", Name: "other"}, "ext/other"},
		{api.Ref{Kind: "se", Namespace: "shop", Name: "my"}, ""},
		{api.Ref{Kind: "vs", Namespace: "default", Name: "weft"}, ""},
	} {
		k, err := lookup(all, c.asked)
		if got := k.Namespace + "/" + k.Name; err == nil && got != c.want || (err != nil) != (c.want == "") {
			t.Errorf("%+v: %s, %v, want %q", c.asked, got, err, c.want)
		}
	}
}
