package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"gopkg.in/yaml.v3"

	"github.com/weftmesh/weft/internal/api"
	"github.com/weftmesh/weft/internal/offline"
	"github.com/weftmesh/weft/internal/printable"
)

func (s *session) applyCommand() *cobra.Command {
	var files []string
	var dryRun bool
	var namespace string
	var as format
	c := &cobra.Command{
		Use:   "apply -f FILE|DIR|-",
		Short: "Create or change objects",
		Long: `Create or change objects. They are checked first; if any is refused, nothing is changed.
Objects of kinds that are none of the mesh's are left out, and named.
Applied objects survive a restart and take precedence over the same object in a file
that "weft up" follows.`,
		Example: `  weft apply -f examples/bookinfo/try/reviews-90-10.yaml
  weft apply -f a.yaml -f b.yaml --dry-run
  weft apply -n shop -f a.yaml
  kustomize build . | weft apply -f -`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkNamespace(c, namespace); err != nil {
				return err
			}
			docs, err := readDocuments(c.Context(), files, c.InOrStdin())
			if err != nil {
				return err
			}
			docs = s.withoutTests(docs)
			client := s.client()
			defer client.Close()
			done := s.out.working("checking " + plural(len(docs), "file"))
			reply, err := client.Apply(c.Context(), api.ChangeRequest{Documents: docs, DryRun: dryRun, Namespace: namespace})
			done()
			if err != nil {
				return err
			}
			return s.printChanges(reply, dryRun, as)
		},
	}
	c.Flags().StringArrayVarP(&files, "filename", "f", nil, "file, folder, or - for standard input; may be repeated")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "check and say what would change, but change nothing")
	c.Flags().StringVarP(&namespace, "namespace", "n", "", "namespace of objects that name none; none may name another")
	as.flag(c, "json or yaml: what was done, and the findings")
	_ = c.MarkFlagRequired("filename")
	return c
}

// checkNamespace refuses an empty one that was said, as by a variable that is not set.
func checkNamespace(c *cobra.Command, namespace string) error {
	if c.Flags().Changed("namespace") && namespace == "" {
		return &usageError{errors.New("-n names no namespace: it is empty")}
	}
	return nil
}

// removal is what the delete command is asked for.
type removal struct {
	files        []string
	all, missing bool
	namespace    string
	as           format
}

func (s *session) deleteCommand() *cobra.Command {
	var q removal
	c := &cobra.Command{
		Use:   "delete (-f FILE|DIR|- | KIND NAME... | KIND/NAME... | --all)",
		Short: "Delete objects that were applied, or programs that were run",
		Example: `  weft delete -f examples/bookinfo/try/reviews-90-10.yaml
  weft delete virtualservice reviews
  weft delete vs/reviews dr/reviews
  weft delete program curl
  weft delete --all
  weft delete --all -n shop     # everything that was applied in this namespace`,
		RunE: func(c *cobra.Command, args []string) error { return s.delete(c, args, &q) },
	}
	c.Flags().StringArrayVarP(&q.files, "filename", "f", nil, "file, folder, or - for standard input; may be repeated")
	c.Flags().BoolVar(&q.all, "all", false, "delete everything that was applied; with -n, everything in that namespace")
	c.Flags().BoolVar(&q.missing, "ignore-not-found", false, "delete those that are there, even if others are not; else nothing is deleted then")
	c.Flags().StringVarP(&q.namespace, "namespace", "n", "default", "namespace of the names given, or of objects in files that name none, or that --all is limited to")
	q.as.flag(c, "json or yaml: what was done, and the findings")
	return c
}

func (s *session) delete(c *cobra.Command, args []string, q *removal) error {
	named, err := q.check(c, args)
	if err != nil {
		return err
	}
	running, err := programs(named)
	if err != nil {
		return err
	}
	client := s.client()
	defer client.Close()
	if running {
		return s.removePrograms(c.Context(), client, refs(c, named, q.namespace))
	}
	req, err := s.deletion(c, named, q)
	if err != nil {
		return err
	}
	done := s.out.working("deleting")
	reply, err := client.Delete(c.Context(), req)
	done()
	if err != nil {
		return err
	}
	if len(reply.Changes) == 0 && !reply.Refused && q.as.name == "" {
		s.out.printf("nothing was applied%s, so nothing was deleted\n", inNamespace(req.AllIn))
	}
	return s.printChanges(reply, false, q.as)
}

func inNamespace(name string) string {
	if name == "" {
		return ""
	}
	return " in namespace " + name
}

// check gives the objects that arguments name, and refuses what does not say exactly one way what to delete: more would go than was meant
// if a word were left out of account.
func (q *removal) check(c *cobra.Command, args []string) ([]ask, error) {
	named, err := asked(args)
	if err != nil {
		return nil, err
	}
	ways := 0
	for _, given := range []bool{len(q.files) > 0, len(args) > 0, q.all} {
		if given {
			ways++
		}
	}
	switch {
	case ways == 0 || slices.ContainsFunc(named, func(a ask) bool { return a.name == "" }):
		return nil, &usageError{errors.New("name what to delete: -f FILE, KIND NAME, KIND/NAME, or --all")}
	case ways > 1 && q.all:
		return nil, &usageError{errors.New("--all deletes everything that was applied: leave out -f and KIND NAME, or leave out --all")}
	case ways > 1:
		return nil, &usageError{errors.New("-f and KIND NAME do not go together: delete the one, then the other")}
	}
	return named, checkNamespace(c, q.namespace)
}

func (s *session) removePrograms(ctx context.Context, client *api.Client, programs []api.Ref) error {
	for _, p := range programs {
		if err := client.RemoveProgram(ctx, p.Namespace, p.Name); err != nil {
			return err
		}
		s.out.printf("%s/%s/%s deleted\n", "Program", p.Namespace, p.Name)
	}
	return nil
}

// deletion is the request to delete what files or arguments name, or all there is.
func (s *session) deletion(c *cobra.Command, named []ask, q *removal) (req api.ChangeRequest, err error) {
	req.IgnoreNotFound = q.missing
	said := c.Flags().Changed("namespace")
	switch {
	case q.all && said:
		req.AllIn = q.namespace
	case q.all:
		req.All = true
	case len(q.files) > 0:
		if said {
			req.Namespace = q.namespace
		}
		if req.Documents, err = readDocuments(c.Context(), q.files, c.InOrStdin()); err == nil {
			req.Documents = s.withoutTests(req.Documents)
		}
	default:
		req.Refs = refs(c, named, q.namespace)
	}
	return req, err
}

// printChanges prints what was done, then the findings; errors end the command with code 1.
func (s *session) printChanges(r api.ChangeReply, dryRun bool, as format) error {
	if done, err := as.write(s.out, r); err != nil || done && !r.Refused {
		return err
	} else if done {
		return &ExitError{1}
	}
	for _, c := range r.Changes {
		p := green
		if c.Action == "unchanged" {
			p = dim
		}
		suffix := ""
		if dryRun {
			suffix = " (dry run)"
		}
		s.out.printf("%s %s%s\n", c.Object, s.out.paint(p, c.Action), suffix)
	}
	s.printFindings(r.Findings)
	if r.Refused {
		fmt.Fprintln(s.out.err, "nothing was changed")
		return &ExitError{1}
	}
	return nil
}

func (s *session) printFindings(fs []api.Finding) {
	for _, f := range fs {
		p := map[string]paint{api.SeverityError: red, api.SeverityWarning: yellow}[f.Severity]
		fmt.Fprintln(s.out.err, strings.Replace(printable.Text(f.Text), f.Severity+":", s.out.paintErr(p, f.Severity+":"), 1))
	}
}

// interruptible reads until ctx ends: a pipe or a terminal may have nothing to say for ever.
func interruptible(ctx context.Context, read func() ([]byte, error)) ([]byte, error) {
	type answer struct {
		raw []byte
		err error
	}
	answers := make(chan answer, 1)
	go func() { // ends with what it reads, or the process
		raw, err := read()
		answers <- answer{raw, err}
	}()
	select {
	case a := <-answers:
		return a.raw, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// stdinPath is what stands for standard input among paths.
const stdinPath = "-"

// inputName is how findings call what a path names: a line at "-" would look like no place at all, least of all in `weft status`.
func inputName(path string) string {
	if path == stdinPath {
		return "stdin"
	}
	return path
}

// readInput reads a file, or standard input, up to a byte more than whoever decodes it takes.
func readInput(ctx context.Context, path string, stdin io.Reader) ([]byte, error) {
	limited := func(r io.Reader) ([]byte, error) { return io.ReadAll(io.LimitReader(r, offline.MaxFileSize+1)) }
	if path != stdinPath {
		return interruptible(ctx, func() ([]byte, error) {
			f, err := os.Open(path)
			if err != nil {
				return nil, err
			}
			defer f.Close()
			return limited(f)
		})
	}
	raw, err := interruptible(ctx, func() ([]byte, error) { return limited(stdin) })
	if err != nil {
		return nil, fmt.Errorf("standard input: %w", err)
	}
	return raw, nil
}

// readDocuments reads files, the YAML and JSON files of folders, and standard input.
func readDocuments(ctx context.Context, paths []string, stdin io.Reader) ([]api.Document, error) {
	var docs []api.Document
	for _, p := range paths {
		if p == stdinPath {
			raw, err := readInput(ctx, p, stdin)
			if err != nil {
				return nil, err
			}
			docs = append(docs, api.Document{Name: inputName(p), Content: raw})
			continue
		}
		files, err := expand(p)
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			raw, err := readInput(ctx, f, nil)
			if err != nil {
				return nil, err
			}
			docs = append(docs, api.Document{Name: f, Content: raw})
		}
	}
	return docs, nil
}

// regular refuses what is found in a folder and is no file: reading a pipe there would wait for somebody to write.
func regular(path string) error {
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() && !info.IsDir() {
		err = fmt.Errorf("%s: not a regular file", path)
	}
	return err
}

// emptyFolderError says that a folder holds no objects.
type emptyFolderError struct{ path string }

func (e *emptyFolderError) Error() string { return e.path + ": holds no .yaml, .yml or .json file" }

func expand(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		if e.IsDir() || !isManifest(e.Name()) {
			continue
		}
		file := filepath.Join(path, e.Name())
		if err := regular(file); err != nil {
			return nil, err
		}
		files = append(files, file)
	}
	if len(files) == 0 {
		return nil, &emptyFolderError{path}
	}
	return files, nil
}

func (s *session) getCommand() *cobra.Command {
	var namespace string
	var everywhere bool
	var as format
	c := &cobra.Command{
		Use:   "get [KIND[,KIND...] [NAME...] | KIND/NAME...]",
		Short: "Show the objects in force and those refused, and what is wrong with them",
		Long: `Show the objects in force and those refused, and what is wrong with them.

STATE is ok, warning or error by the worst finding, which are below the table. An object whose change was refused is
shown as it was accepted before; one of which nothing was ever accepted has no age and no text: -o yaml names it beside
the output, and has exit code 1 if there is no other. -o json is a List, which can be applied again; what is known of
each object stands in its status. The status in -o yaml and -o json is the one that this mesh gives;
one in a file says nothing of it and is left out, save the addresses of Pods and Services.`,
		Example: `  weft get
  weft get virtualservice
  weft get vs,dr -n shop
  weft get vs reviews -o yaml
  weft get vs/reviews dr/reviews`,
		RunE: func(c *cobra.Command, args []string) error {
			if everywhere && namespace != "" {
				return &usageError{errors.New("-A shows all namespaces, and -n one: leave out one of them")}
			}
			wanted, err := asked(withoutAll(args))
			if err == nil {
				err = knownKinds(wanted)
			}
			if err != nil {
				return err
			}
			client := s.client()
			defer client.Close()
			objects, err := client.Objects(c.Context(), selection(wanted, namespace))
			if err != nil {
				return err
			}
			objects, err = selectObjects(objects, wanted, namespace)
			if err != nil {
				return err
			}
			return s.printObjects(objects, as.name)
		},
	}
	as.flag(c, "json or yaml")
	c.Flags().StringVarP(&namespace, "namespace", "n", "", "only this namespace")
	c.Flags().BoolVarP(&everywhere, "all-namespaces", "A", false, "all namespaces, as without -n")
	return c
}

// withoutAll leaves out the word by which kubectl's users ask for objects of all kinds.
func withoutAll(args []string) []string {
	if len(args) == 1 && args[0] == "all" {
		return nil
	}
	return args
}

// matches reports whether an object is among what is asked for.
func (a ask) matches(o *api.Object) bool {
	return api.Pattern{Kind: a.kind, Name: a.name}.Matches(o.Ref)
}

// selection asks the mesh for no more than what is wanted.
func selection(wanted []ask, namespace string) api.Selection {
	s := api.Selection{Namespace: namespace}
	for _, a := range wanted {
		s.Patterns = append(s.Patterns, api.Pattern{Kind: a.kind, Name: a.name})
	}
	return s
}

// selectObjects gives the objects that are wanted, all where nothing is named. Those that are named must be there.
func selectObjects(all []api.Object, wanted []ask, namespace string) ([]api.Object, error) {
	var found []api.Object
	there := make([]bool, len(wanted))
	for _, o := range all {
		if namespace != "" && o.Namespace != namespace {
			continue
		}
		is := len(wanted) == 0
		for i, a := range wanted {
			if a.matches(&o) {
				is, there[i] = true, true
			}
		}
		if is {
			found = append(found, o)
		}
	}
	for i, a := range wanted {
		if a.name != "" && !there[i] {
			return nil, &api.NotFoundError{Message: fmt.Sprintf("no %s named %q%s", a.kind, a.name, inNamespace(namespace)), Hint: "weft get " + a.kind + " lists them"}
		}
	}
	slices.SortFunc(found, func(a, b api.Object) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return found, nil
}

// objectList is what -o json prints: a List, which can be applied again. Its status says beside the objects what is known of each, and of
// those that were refused.
type objectList struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Items      []any  `json:"items"`
	Status     struct {
		Objects []knownObject `json:"objects"`
	} `json:"status"`
}

type knownObject struct {
	api.Ref
	Source   string        `json:"source"`
	Created  time.Time     `json:"created,omitzero"`
	Refused  bool          `json:"refused,omitempty"`
	Findings []api.Finding `json:"findings,omitempty"`
}

func (s *session) printObjectsJSON(objects []api.Object) error {
	list := objectList{APIVersion: "v1", Kind: "List", Items: []any{}}
	list.Status.Objects = []knownObject{}
	for _, o := range objects {
		list.Status.Objects = append(list.Status.Objects, knownObject{o.Ref, o.Source, o.Created, o.Refused, o.Findings})
		if o.Refused {
			continue
		}
		item, err := values(o.YAML)
		if err != nil {
			return fmt.Errorf("%s: %w", o.Ref, err)
		}
		list.Items = append(list.Items, item)
	}
	return s.out.json(list)
}

// values gives what a document says. Dates are texts: no field of an object is anything else.
func values(document string) (v any, err error) {
	var n yaml.Node
	if err := yaml.Unmarshal([]byte(document), &n); err != nil {
		return nil, err
	}
	var texts func(n *yaml.Node)
	texts = func(n *yaml.Node) {
		if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!timestamp" {
			n.Tag = "!!str"
		}
		for _, c := range n.Content {
			texts(c)
		}
	}
	texts(&n)
	return v, n.Decode(&v)
}

// asYAML gives a document as it was written, save one in JSON.
func asYAML(document string) (string, error) {
	document = strings.TrimSpace(document)
	if !strings.HasPrefix(document, "{") {
		return document, nil
	}
	v, err := values(document)
	if err != nil {
		return "", err
	}
	text, err := yaml.Marshal(v)
	return strings.TrimSpace(string(text)), err
}

func (s *session) printObjects(objects []api.Object, format string) error {
	switch format {
	case "yaml":
		return s.printObjectsYAML(objects)
	case "json":
		return s.printObjectsJSON(objects)
	}
	rows := make([][]cell, 0, len(objects))
	var findings []api.Finding
	for _, o := range objects {
		state := painted(green, "ok")
		for _, f := range o.Findings {
			if f.Severity == api.SeverityError {
				state = painted(red, "error")
			} else if f.Severity == api.SeverityWarning && state.paint != red {
				state = painted(yellow, "warning")
			}
		}
		for _, f := range o.Findings { // one may be said of several objects
			if !slices.Contains(findings, f) {
				findings = append(findings, f)
			}
		}
		rows = append(rows, []cell{text(o.Kind), text(o.Namespace), text(o.Name), state, text(age(o.Created, time.Now())), painted(dim, o.Source)})
	}
	if len(rows) == 0 {
		s.out.printf("no objects\n")
		return nil
	}
	s.out.table([]column{{head: "KIND"}, {head: "NAMESPACE"}, {head: "NAME"}, {head: "STATE"}, {head: "AGE", spare: 2}, {head: "FROM", spare: 1}}, rows)
	s.printFindings(findings)
	s.printRefused(objects)
	return nil
}

// printObjectsYAML prints the documents of objects. Refused ones have none: they are told beside the output.
func (s *session) printObjectsYAML(objects []api.Object) error {
	printed := 0
	for _, o := range objects {
		if o.Refused {
			s.printFindings(o.Findings)
			continue
		}
		if printed++; printed > 1 {
			s.out.printf("---\n")
		}
		text, err := asYAML(o.YAML)
		if err != nil {
			return fmt.Errorf("%s: %w", o.Ref, err)
		}
		s.out.printf("%s\n", text)
	}
	s.printRefused(objects)
	if printed == 0 && len(objects) > 0 {
		return &ExitError{1}
	}
	return nil
}

// printRefused names the objects of which nothing is in force.
func (s *session) printRefused(objects []api.Object) {
	var names []string
	for _, o := range objects {
		if o.Refused {
			names = append(names, o.Ref.String())
		}
	}
	if len(names) > 0 {
		fmt.Fprintf(s.out.err, "refused, and not in force: %s\n", printable.Text(strings.Join(names, ", ")))
	}
}
