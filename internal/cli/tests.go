package cli

import (
	"context"
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/tools/txtar"

	"github.com/weftmesh/weft/internal/api"
	"github.com/weftmesh/weft/internal/explain/expect"
	"github.com/weftmesh/weft/internal/offline"
)

func (s *session) testCommand() *cobra.Command {
	var run, junit string
	var as format
	var verbose bool
	c := &cobra.Command{
		Use:   "test FILE|DIR|-...",
		Short: "Check what files of tests expect of routes and policies, without a mesh",
		Long: `Check what files of tests expect of routes and policies, without a mesh: where a request goes, what
is changed on the way, who is let in. docs/testing.md describes the files. In folders, and the
folders in them, they are those that end in _test.yaml, _test.yml or _test.txtar. Standard input (-)
is a file in the current folder, called stdin.
The exit code is 1 if a test fails, a file cannot be read, or --run matches none.`,
		Example: `  weft test examples/bookinfo/test
  weft test -v --run jason routes_test.yaml
  weft test deploy/ --junit report.xml`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			only, err := regexp.Compile(run)
			if err != nil {
				return &usageError{fmt.Errorf("--run: %w", err)}
			}
			files, err := testFiles(args)
			if err != nil {
				return err
			}
			var all []expect.Result
			done := s.out.working("testing " + plural(len(files), "file"))
			for _, f := range files {
				results, err := testFile(c.Context(), f, c.InOrStdin(), only, s.out.color)
				if c.Context().Err() != nil {
					return c.Context().Err()
				}
				if err != nil {
					results = []expect.Result{{Name: inputName(f), File: inputName(f), Line: 1, Error: err.Error()}}
				}
				all = append(all, results...)
			}
			done()
			if len(all) == 0 && run != "" {
				return fmt.Errorf("--run %q matches the name of no test in %s", run, plural(len(files), "file"))
			}
			if junit != "" {
				if err := writeJUnit(junit, all); err != nil {
					return err
				}
			}
			return s.printTests(all, len(files), verbose, as)
		},
	}
	c.Flags().StringVar(&run, "run", "", "only tests whose name this regular expression matches")
	c.Flags().BoolVarP(&verbose, "verbose", "v", false, "name the tests that pass, too")
	c.Flags().StringVar(&junit, "junit", "", "file to write a report in JUnit's form to")
	as.flag(c, "json or yaml")
	return c
}

// testFile runs the tests of a file, or of standard input. An archive holds its tests in the file tests.yaml, and objects beside it.
func testFile(ctx context.Context, file string, stdin io.Reader, only *regexp.Regexp, color bool) ([]expect.Result, error) {
	data, err := readInput(ctx, file, stdin)
	if err != nil {
		return nil, err
	}
	read, name := readBeside(ctx, file), inputName(file)
	if strings.HasSuffix(file, ".txtar") || file == stdinPath && len(txtar.Parse(data).Files) > 0 {
		var inside []api.Document
		tests := false
		for _, f := range txtar.Parse(data).Files {
			if f.Name == "tests.yaml" {
				data, tests = f.Data, true
				continue
			}
			inside = append(inside, api.Document{Name: name + "/" + f.Name, Content: f.Data})
		}
		if !tests {
			return nil, fmt.Errorf("%s: has no file tests.yaml", name)
		}
		read = readArchive(name, inside, read)
	}
	return offline.Test(name, data, read, only.MatchString, offline.Options{Color: color})
}

// readArchive reads what the tests of an archive name: files of the archive by their names in it, then others, by outside. The rest of the
// archive follows, save what was named by itself before: the file of settings is no file of objects.
func readArchive(archive string, inside []api.Document, outside func([]string) ([]api.Document, error)) func([]string) ([]api.Document, error) {
	said := map[string]bool{}
	return func(paths []string) ([]api.Document, error) {
		var first, last []api.Document
		before, others := maps.Clone(said), slices.Clone(paths)
		for _, d := range inside {
			named := func(p string) bool { return archive+"/"+path.Clean(p) == d.Name }
			switch {
			case slices.ContainsFunc(paths, named):
				first, said[d.Name] = append(first, d), true
				others = slices.DeleteFunc(others, named)
			case !before[d.Name]:
				last = append(last, d)
			}
		}
		docs, err := outside(others)
		return slices.Concat(first, docs, last), err
	}
}

func (s *session) printTests(all []expect.Result, files int, verbose bool, as format) error {
	failed := 0
	for i := range all {
		if !all[i].Passed() {
			failed++
		}
	}
	switch done, err := as.write(s.out, all); {
	case err != nil:
		return err
	case !done:
		for i := range all {
			s.printTest(&all[i], verbose)
		}
		s.out.printf("%s in %s: %d passed, %s\n", plural(len(all), "test"), plural(files, "file"), len(all)-failed, s.failedText(failed))
	}
	if failed > 0 {
		return &ExitError{1}
	}
	return nil
}

func (s *session) failedText(failed int) string {
	if failed == 0 {
		return "0 failed"
	}
	return s.out.paint(red, fmt.Sprintf("%d failed", failed))
}

func (s *session) printTest(r *expect.Result, verbose bool) {
	if r.Passed() {
		if verbose {
			s.out.printf("%s  %s  %s\n", s.out.paint(green, "ok  "), r.Name, s.out.paint(dim, fmt.Sprintf("%s:%d", r.File, r.Line)))
		}
		return
	}
	s.out.printf("%s  %s  %s\n", s.out.paint(red, "FAIL"), r.Name, s.out.paint(dim, fmt.Sprintf("%s:%d", r.File, r.Line)))
	if r.Error != "" {
		s.out.printf("      %s\n", strings.ReplaceAll(r.Error, "\n", "\n      "))
	}
	for _, f := range r.Failures {
		s.out.printf("      %s  %s\n        expected  %s\n        got       %s\n", f.Field, s.out.paint(dim, fmt.Sprintf("line %d", f.Line)), f.Want, f.Got)
	}
	for line := range strings.Lines(r.Text) {
		s.out.printf("      %s %s", s.out.paint(dim, "|"), line)
	}
	s.out.printf("\n")
}

// The elements of a report in JUnit's form, as far as continuous integration reads them.
type (
	junitSuites struct {
		XMLName xml.Name     `xml:"testsuites"`
		Suites  []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name     string      `xml:"name,attr"`
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"`
		Cases    []junitCase `xml:"testcase"`
	}
	junitCase struct {
		Name    string        `xml:"name,attr"`
		Class   string        `xml:"classname,attr"`
		File    string        `xml:"file,attr"`
		Line    int           `xml:"line,attr"`
		Failure *junitFailure `xml:"failure"`
	}
	junitFailure struct {
		Message string `xml:"message,attr"`
		Text    string `xml:",chardata"`
	}
)

func writeJUnit(file string, all []expect.Result) error {
	var doc junitSuites
	for i := range all {
		r := &all[i]
		if n := len(doc.Suites); n == 0 || doc.Suites[n-1].Name != r.File {
			doc.Suites = append(doc.Suites, junitSuite{Name: r.File})
		}
		suite := &doc.Suites[len(doc.Suites)-1]
		c := junitCase{Name: r.Name, Class: r.File, File: r.File, Line: r.Line}
		if !r.Passed() {
			c.Failure = &junitFailure{Message: r.Error, Text: r.Text}
			for _, f := range r.Failures {
				c.Failure.Message = strings.TrimSpace(c.Failure.Message + fmt.Sprintf(" %s: expected %s, got %s.", f.Field, f.Want, f.Got))
			}
			suite.Failures++
		}
		suite.Tests++
		suite.Cases = append(suite.Cases, c)
	}
	raw, err := xml.MarshalIndent(&doc, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append([]byte(xml.Header), append(raw, '\n')...), 0o644)
}
