package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weftmesh/weft/internal/api"
	"github.com/weftmesh/weft/internal/offline"
	"github.com/weftmesh/weft/internal/printable"
)

func (s *session) analyzeCommand() *cobra.Command {
	var failOn string
	var as format
	var recursive, running bool
	var settings string
	var o offline.Options
	c := &cobra.Command{
		Use:   "analyze FILE|DIR|-...",
		Short: "Say what is wrong with files, without a mesh",
		Long: `Say what is wrong with files, without a mesh: what would be refused, what leads nowhere, what
contradicts what. The files are judged together, as if they were all that there is; Deployments
count as if they ran. Objects of kinds that are none of the mesh's are left out, and named. Standard
input (-) is called stdin. The exit code is 1 if there are findings of --fail-on or worse, or if there
is no object in all that was given.`,
		Example: `  weft analyze examples/bookinfo
  weft analyze -R deploy/ --fail-on warning
  weft analyze new.yaml --with-mesh      # together with what runs
  weft analyze -R . -o github            # annotations on a pull request
  kustomize build . | weft analyze -`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if failOn != api.SeverityError && failOn != api.SeverityWarning {
				return &usageError{fmt.Errorf("--fail-on %q: want error or warning", failOn)}
			}
			docs, err := readTree(c.Context(), args, recursive, c.InOrStdin())
			if err != nil {
				return err
			}
			docs = s.withoutTests(docs)
			if o.MeshConfig, err = meshConfig(settings); err != nil {
				return err
			}
			var a offline.Analysis
			done := s.out.working("analyzing " + plural(len(docs), "file"))
			if running {
				a, err = s.analyzeWithMesh(c, docs)
			} else {
				a = offline.Analyze(docs, o)
			}
			if done(); err != nil {
				return err
			}
			if err := s.printAnalysis(&a, as); err != nil {
				return err
			}
			if a.Count(api.SeverityError) > 0 || failOn == api.SeverityWarning && a.Count(api.SeverityWarning) > 0 {
				return &ExitError{1}
			}
			if a.Objects == 0 && !slices.ContainsFunc(a.Findings, leftOut) { // as with apply: whatever should have written some may be broken
				return errors.New("there is no object in what was given")
			}
			return nil
		},
	}
	as.flag(c, "json, yaml, github (annotations of its workflows) or sarif", "github", "sarif")
	c.Flags().StringVar(&failOn, "fail-on", api.SeverityError, "error or warning: the least that gives exit code 1")
	c.Flags().BoolVarP(&recursive, "recursive", "R", false, "with the folders in folders")
	c.Flags().BoolVar(&running, "with-mesh", false, "judge the files together with what runs")
	c.Flags().BoolVar(&o.RegistryOnly, "registry-only", false, "as weft up --registry-only")
	c.Flags().StringVar(&settings, "mesh-config", "", "as weft up --mesh-config")
	return c
}

func leftOut(f api.Finding) bool { return f.Code == api.CodeLeftOut }

// meshConfig reads the file of mesh-wide settings; nil for no file.
func meshConfig(file string) (*api.Document, error) {
	if file == "" {
		return nil, nil
	}
	raw, err := os.ReadFile(file)
	return &api.Document{Name: file, Content: raw}, err
}

// analyzeWithMesh has the running mesh judge documents as if they were applied.
func (s *session) analyzeWithMesh(c *cobra.Command, docs []api.Document) (offline.Analysis, error) {
	client := s.client()
	defer client.Close()
	r, err := client.Apply(c.Context(), api.ChangeRequest{Documents: docs, DryRun: true})
	return offline.Analysis{Files: len(docs), Objects: len(r.Changes), Findings: r.Findings}, err
}

func (s *session) printAnalysis(a *offline.Analysis, as format) error {
	slices.SortStableFunc(a.Findings, func(x, y api.Finding) int { return cmp.Or(cmp.Compare(x.File, y.File), cmp.Compare(x.Line, y.Line)) })
	switch as.name {
	case "github":
		for _, f := range a.Findings {
			s.out.printf("%s\n", annotation(&f))
		}
		return nil
	case "sarif":
		return s.out.json(sarif(a.Findings))
	}
	done, err := as.write(s.out, a)
	if !done {
		s.printGrouped(a)
	}
	return err
}

// printGrouped prints the findings of each file below its name, and a summary.
func (s *session) printGrouped(a *offline.Analysis) {
	paints := map[string]paint{api.SeverityError: red, api.SeverityWarning: yellow, api.SeverityInfo: cyan}
	last := ""
	width := 1
	for _, f := range a.Findings {
		width = max(width, len(fmt.Sprint(f.Line)))
	}
	for i, f := range a.Findings {
		if name := cmp.Or(f.File, "(no file)"); i == 0 || f.File != last {
			if i > 0 {
				s.out.printf("\n")
			}
			s.out.printf("%s\n", s.out.paint(bold, printable.Text(name)))
		}
		last = f.File
		severity := fmt.Sprintf("%-7s", f.Severity)
		line := fmt.Sprintf("%*d", width, f.Line)
		if f.Line == 0 {
			line = strings.Repeat(" ", width)
		}
		message := f.Message
		if f.Field != "" {
			message = f.Field + ": " + message
		}
		about := ""
		if f.Object != (api.Ref{}) {
			about = f.Object.String() + "  "
		}
		s.out.printf("  %s  %s  %s%s\n", line, s.out.paint(paints[f.Severity], severity), printable.Text(about), s.out.paint(dim, f.Code))
		s.out.printf("  %*s           %s\n", width, "", printable.Text(message))
		if f.Hint != "" {
			s.out.printf("  %*s           %s\n", width, "", s.out.paint(dim, printable.Text(f.Hint)))
		}
	}
	if len(a.Findings) > 0 {
		s.out.printf("\n")
	}
	s.out.printf("%s in %s: %s, %s\n", plural(a.Objects, "object"), plural(a.Files, "file"),
		plural(a.Count(api.SeverityError), "error"), plural(a.Count(api.SeverityWarning), "warning"))
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// annotation is a finding as a workflow of GitHub shows it beside the line.
// Source: GitHub's documentation, "Workflow commands": property values escape colon and comma as well.
func annotation(f *api.Finding) string {
	data := strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A")
	property := strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", ":", "%3A", ",", "%2C")
	level := map[string]string{api.SeverityError: "error", api.SeverityWarning: "warning", api.SeverityInfo: "notice"}[f.Severity]
	message := f.Message
	if f.Field != "" {
		message = f.Field + ": " + message
	}
	if f.Object != (api.Ref{}) {
		message = f.Object.String() + ": " + message
	}
	if f.Hint != "" {
		message += " (" + f.Hint + ")"
	}
	return fmt.Sprintf("::%s file=%s,line=%d,title=%s::%s", level, property.Replace(f.File), max(f.Line, 1), property.Replace(f.Code), data.Replace(message))
}

// sarif is a log of SARIF 2.1.0 (OASIS), which code hosts read.
func sarif(fs []api.Finding) map[string]any {
	type m = map[string]any
	results, rules, known := []m{}, []m{}, map[string]bool{}
	for _, f := range fs {
		if !known[f.Code] {
			known[f.Code] = true
			rules = append(rules, m{"id": f.Code})
		}
		level := map[string]string{api.SeverityError: "error", api.SeverityWarning: "warning", api.SeverityInfo: "note"}[f.Severity]
		results = append(results, m{"ruleId": f.Code, "level": level, "message": m{"text": f.Text},
			"locations": []m{{"physicalLocation": m{"artifactLocation": m{"uri": (&url.URL{Path: filepath.ToSlash(f.File)}).String()},
				"region": m{"startLine": max(f.Line, 1)}}}}})
	}
	return m{"$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0",
		"runs": []m{{"tool": m{"driver": m{"name": "weft analyze", "rules": rules}}, "results": results}}}
}

// readTree is readDocuments, with the folders in folders if wanted.
func readTree(ctx context.Context, paths []string, recursive bool, stdin interface{ Read([]byte) (int, error) }) ([]api.Document, error) {
	if !recursive {
		return readDocuments(ctx, paths, stdin)
	}
	var files []string
	for _, p := range paths {
		if p == stdinPath {
			files = append(files, p)
			continue
		}
		err := filepath.WalkDir(p, func(path string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case d.IsDir() && path != p && strings.HasPrefix(d.Name(), "."):
				return filepath.SkipDir
			case path == p && !d.IsDir():
				files = append(files, path)
			case !d.IsDir() && isManifest(d.Name()):
				files = append(files, path)
				return regular(path)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s: hold no .yaml, .yml or .json file", strings.Join(paths, ", "))
	}
	return readDocuments(ctx, files, stdin)
}

// withoutTests leaves out files of weft test, which are no objects, and says so.
func (s *session) withoutTests(docs []api.Document) []api.Document {
	objects := slices.DeleteFunc(slices.Clone(docs), func(d api.Document) bool { return offline.IsTests(d) })
	if n := len(docs) - len(objects); n > 0 {
		fmt.Fprintf(s.out.err, "%s of tests left out: weft test runs them\n", plural(n, "file"))
	}
	return objects
}

func isManifest(name string) bool {
	return !strings.HasPrefix(name, ".") && slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(name))
}

// comparison is what the diff command is asked for.
type comparison struct {
	files, deleted      []string
	from, to            []string
	namespace, settings string
	as                  format
	exitCode            bool
	offline             offline.Options
}

func (s *session) diffCommand() *cobra.Command {
	var q comparison
	c := &cobra.Command{
		Use:   "diff (-f FILE|DIR|-... | --delete KIND/NAME... | --from FILE|DIR --to FILE|DIR)",
		Short: "Say which requests would behave differently",
		Long: `Say which requests would behave differently if files were applied to the running mesh, or objects
deleted; or, without a mesh, between two sets of files. It is computed from what proxies would get,
not from text: for each kind of client and each destination, requests that stand for all that the
routes and policies of either side tell apart are put to the proxy's own code on both sides.

It cannot see how workloads answer, nor what depends on earlier requests: health that is found by
traffic, limits that are used up. A Deployment that is changed counts as if its instances stayed.
Of what a regular expression or an address range matches only samples are tried: where one differs
between the sides and no request shows it, it is named, and others may behave differently.
Clients are workloads that both sides have, and proxies that are connected to the running mesh; where
there is none, nothing is tried, and it says so.`,
		Example: `  weft diff -f examples/bookinfo/try/reviews-jason-v2.yaml
  weft diff --delete virtualservice/reviews
  weft diff --from main/deploy --to branch/deploy --exit-code`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return s.diff(c, &q) },
	}
	c.Flags().StringArrayVarP(&q.files, "filename", "f", nil, "file, folder, or - for standard input; may be repeated")
	c.Flags().StringArrayVar(&q.deleted, "delete", nil, "object to do without, as KIND/NAME; may be repeated")
	c.Flags().StringArrayVar(&q.from, "from", nil, "file or folder of the side before; may be repeated")
	c.Flags().StringArrayVar(&q.to, "to", nil, "file or folder of the side after; may be repeated")
	c.Flags().StringVarP(&q.namespace, "namespace", "n", "default", "namespace of the names given, and of objects in files that name none")
	q.as.flag(c, "json or yaml")
	c.Flags().BoolVar(&q.exitCode, "exit-code", false, "end with code 1 if a request would behave differently, or may")
	c.Flags().BoolVar(&q.offline.RegistryOnly, "registry-only", false, "with --from and --to: as weft up --registry-only")
	c.Flags().StringVar(&q.settings, "mesh-config", "", "with --from and --to: as weft up --mesh-config")
	return c
}

func (s *session) diff(c *cobra.Command, q *comparison) error {
	r, err := s.compare(c, q)
	if err != nil {
		return err
	}
	s.printFindings(r.Findings)
	if r.Refused {
		return errors.New("the objects would be refused, so nothing was compared")
	}
	written, err := q.as.write(s.out, r.Report)
	if !written {
		s.out.printf("%s", r.Text)
	}
	if err == nil && q.exitCode && r.Different {
		return &ExitError{1}
	}
	return err
}

// compare asks for the differences: of two sets of files, or of a change to the running mesh.
func (s *session) compare(c *cobra.Command, q *comparison) (r api.DiffReply, err error) {
	fromFiles := len(q.from)+len(q.to) > 0
	switch {
	case fromFiles && (len(q.from) == 0 || len(q.to) == 0 || len(q.files)+len(q.deleted) > 0):
		return r, &usageError{errors.New("--from and --to go together, and without -f and --delete")}
	case !fromFiles && len(q.files)+len(q.deleted) == 0:
		return r, &usageError{errors.New("say what to compare: -f FILE, --delete KIND/NAME, or --from DIR --to DIR")}
	}
	q.offline.Color = s.out.color
	if q.offline.MeshConfig, err = meshConfig(q.settings); err != nil {
		return r, err
	}
	defer s.out.working("comparing")()
	if fromFiles {
		return s.diffFiles(c, q.from, q.to, q.offline)
	}
	return s.diffRunning(c, q.files, q.deleted, q.namespace)
}

func (s *session) diffFiles(c *cobra.Command, from, to []string, o offline.Options) (api.DiffReply, error) {
	before, noneBefore, err := readSide(c, from)
	if err != nil {
		return api.DiffReply{}, err
	}
	after, noneAfter, err := readSide(c, to)
	if err != nil {
		return api.DiffReply{}, err
	}
	if noneBefore != nil && noneAfter != nil { // there is nothing to compare
		return api.DiffReply{}, errors.Join(noneBefore, noneAfter)
	}
	return offline.Diff(s.withoutTests(before), s.withoutTests(after), o)
}

// readSide reads one side of a comparison, which may be an empty folder: the error is then apart.
func readSide(c *cobra.Command, paths []string) (docs []api.Document, none, err error) {
	docs, err = readDocuments(c.Context(), paths, c.InOrStdin())
	var empty *emptyFolderError
	if len(paths) == 1 && errors.As(err, &empty) {
		return nil, err, nil
	}
	return docs, nil, err
}

func (s *session) diffRunning(c *cobra.Command, files, deleted []string, namespace string) (api.DiffReply, error) {
	req := api.DiffRequest{Color: s.out.color}
	var err error
	if req.Documents, err = readDocuments(c.Context(), files, c.InOrStdin()); err != nil {
		return api.DiffReply{}, err
	}
	req.Documents = s.withoutTests(req.Documents)
	for _, d := range deleted { // the first without it would say what kind the others are of
		if !strings.Contains(d, "/") {
			return api.DiffReply{}, &usageError{fmt.Errorf("--delete %q: want KIND/NAME", d)}
		}
	}
	named, err := asked(deleted)
	if err := cmp.Or(err, knownKinds(named), checkNamespace(c, namespace)); err != nil {
		return api.DiffReply{}, err
	}
	req.Refs = refs(c, named, namespace)
	if c.Flags().Changed("namespace") {
		req.Namespace = namespace
	}
	client := s.client()
	defer client.Close()
	return client.Diff(c.Context(), req)
}

// explainFiles answers from files alone.
func (s *session) explainFiles(c *cobra.Command, files []string, req api.ExplainRequest, o offline.Options) (api.ExplainReply, error) {
	docs, err := readDocuments(c.Context(), files, c.InOrStdin())
	if err != nil {
		return api.ExplainReply{}, err
	}
	return offline.Explain(s.withoutTests(docs), req, o)
}

// readBeside reads files and folders whose names are relative to a file's folder.
func readBeside(ctx context.Context, file string) func([]string) ([]api.Document, error) {
	return func(paths []string) ([]api.Document, error) {
		at := make([]string, len(paths))
		for i, p := range paths {
			if at[i] = p; !filepath.IsAbs(p) {
				at[i] = filepath.Join(filepath.Dir(file), p)
			}
		}
		return readDocuments(ctx, at, strings.NewReader(""))
	}
}

// testFiles finds files of tests: those that are named, - for standard input, and in folders, and the folders in them, those that end in _test.yaml,
// _test.yml or _test.txtar.
func testFiles(paths []string) (files []string, err error) {
	for _, p := range paths {
		if p == stdinPath {
			files = append(files, p)
			continue
		}
		info, err := os.Stat(p)
		if err != nil {
			return nil, err
		}
		if !info.IsDir() {
			files = append(files, p)
			continue
		}
		found := len(files)
		err = filepath.WalkDir(p, func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() && offline.IsTestName(d.Name()) {
				files = append(files, path)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		if len(files) == found {
			return nil, fmt.Errorf("%s: holds no file that ends in _test.yaml, _test.yml or _test.txtar", p)
		}
	}
	return files, nil
}
