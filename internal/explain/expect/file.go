// Package expect reads files of tests, which say what becomes of requests, and checks them against a mesh: `weft test`. Nothing is
// sent; the answers are those of package explain.
package expect

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/weftmesh/weft/internal/explain"
)

// File is a file of tests.
type File struct {
	Name string
	// Objects are files and folders, as the file names them, that make up the mesh.
	Objects []string
	// MeshConfig names a file of mesh-wide settings; empty for none. RegistryOnly refuses destinations that the mesh does not know.
	MeshConfig   string
	RegistryOnly bool
	Tests        []*Test
}

// Test is one request and what is expected of it.
type Test struct {
	Name    string
	Line    int
	Request explain.Request
	checks  []check
}

// check is one expectation.
type check struct {
	field, want string
	line        int
	// got says what is the case, and whether that is what is wanted.
	got func(*explain.Report) (string, bool)
}

// Error is one thing that is wrong with a file.
type Error struct {
	File    string
	Line    int
	Field   string
	Message string
}

func (e *Error) Error() string {
	field := e.Field
	if field != "" {
		field += ": "
	}
	return fmt.Sprintf("%s:%d: %s%s", e.File, e.Line, field, e.Message)
}

// Parse reads a file. The error joins an Error for each thing that is wrong with it.
func Parse(name string, data []byte) (*File, error) {
	f := &File{Name: name}
	p := &parser{file: name}
	var doc yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, &Error{File: name, Line: 1, Message: "is empty: want objects and tests"}
	} else if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if err := dec.Decode(&yaml.Node{}); !errors.Is(err, io.EOF) {
		return nil, &Error{File: name, Line: 1, Message: "want one document; objects belong into files of their own, which field objects names"}
	}
	p.fields(doc.Content[0], "", map[string]func(*yaml.Node, string){
		"objects": func(n *yaml.Node, at string) {
			for i, item := range p.list(n, at) {
				f.Objects = append(f.Objects, p.text(item, index(at, i)))
			}
		},
		"meshConfig":   func(n *yaml.Node, at string) { f.MeshConfig = p.text(n, at) },
		"registryOnly": func(n *yaml.Node, at string) { f.RegistryOnly = p.boolean(n, at) },
		"tests": func(n *yaml.Node, at string) {
			for i, item := range p.list(n, at) {
				f.Tests = append(f.Tests, p.test(item, index(at, i)))
			}
		},
	})
	if len(f.Tests) == 0 && len(p.errs) == 0 {
		p.fail(doc.Content[0], "tests", "there is none")
	}
	p.names(f.Tests)
	return f, errors.Join(p.errs...)
}

// parser gathers what is wrong.
type parser struct {
	file string
	errs []error
}

func (p *parser) fail(n *yaml.Node, at, format string, args ...any) {
	p.errs = append(p.errs, &Error{p.file, n.Line, at, fmt.Sprintf(format, args...)})
}

func index(at string, i int) string { return fmt.Sprintf("%s[%d]", at, i) }

func under(at, field string) string {
	if at == "" {
		return field
	}
	return at + "." + field
}

// fields calls the reader of each field of a mapping.
func (p *parser) fields(n *yaml.Node, at string, readers map[string]func(*yaml.Node, string)) {
	if n = follow(n); n.Kind != yaml.MappingNode {
		p.fail(n, at, "want a mapping with %s", strings.Join(sorted(readers), ", "))
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		read := readers[k.Value]
		switch {
		case seen[k.Value]:
			p.fail(k, under(at, k.Value), "is written twice")
		case read == nil:
			p.fail(k, under(at, k.Value), "there is no such field; there are %s", strings.Join(sorted(readers), ", "))
		default:
			read(follow(n.Content[i+1]), under(at, k.Value))
		}
		seen[k.Value] = true
	}
}

// pairs gives the entries of a mapping in their order.
func (p *parser) pairs(n *yaml.Node, at string) (out [][2]*yaml.Node) {
	if n.Kind != yaml.MappingNode {
		p.fail(n, at, "want a mapping")
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		out = append(out, [2]*yaml.Node{n.Content[i], follow(n.Content[i+1])})
	}
	return out
}

func (p *parser) list(n *yaml.Node, at string) []*yaml.Node {
	if n.Kind != yaml.SequenceNode {
		p.fail(n, at, "want a list")
		return nil
	}
	return n.Content
}

func (p *parser) text(n *yaml.Node, at string) string {
	if n = follow(n); n.Kind != yaml.ScalarNode || n.ShortTag() == "!!null" {
		p.fail(n, at, "want a text")
		return ""
	}
	return n.Value
}

func (p *parser) boolean(n *yaml.Node, at string) bool {
	var b bool
	if n.ShortTag() != "!!bool" || n.Decode(&b) != nil {
		p.fail(n, at, "want true or false")
	}
	return b
}

func follow(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

func sorted[V any](m map[string]V) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func (p *parser) test(n *yaml.Node, at string) *Test {
	t := &Test{Line: n.Line}
	var expect, request bool
	p.fields(n, at, map[string]func(*yaml.Node, string){
		"name":    func(n *yaml.Node, at string) { t.Name = p.text(n, at) },
		"from":    func(n *yaml.Node, at string) { t.Request.From = p.text(n, at) },
		"request": func(n *yaml.Node, at string) { request = true; p.request(n, at, &t.Request) },
		"headers": func(n *yaml.Node, at string) {
			for _, kv := range p.pairs(n, at) {
				t.Request.Headers = append(t.Request.Headers, explain.Field{Name: kv[0].Value, Value: p.text(kv[1], under(at, kv[0].Value))})
			}
		},
		"serverName": func(n *yaml.Node, at string) { t.Request.ServerName = p.text(n, at) },
		"expect":     func(n *yaml.Node, at string) { expect = len(n.Content) > 0; t.checks = p.expect(n, at) },
	})
	if n.Kind == yaml.MappingNode {
		if t.Request.From == "" {
			p.fail(n, at+".from", "is missing: the workload, service or gateway that sends the request")
		}
		if !request {
			p.fail(n, at+".request", "is missing: such as GET http://reviews:9080/reviews/0")
		}
		if t.Request.ServerName != "" && request && !strings.HasPrefix(t.Request.URL, "https://") {
			p.fail(n, at+".serverName", "goes with https alone, TLS that the client makes itself")
		}
		if !expect {
			p.fail(n, at+".expect", "is missing or empty: a test without an expectation tests nothing")
		}
	}
	return t
}

// request reads "METHOD URL" or a URL.
func (p *parser) request(n *yaml.Node, at string, r *explain.Request) {
	words := strings.Fields(p.text(n, at))
	switch len(words) {
	case 1:
		r.Method, r.URL = "GET", words[0]
	case 2:
		r.Method, r.URL = strings.ToUpper(words[0]), words[1]
	default:
		p.fail(n, at, "want METHOD URL, such as GET http://reviews:9080/reviews/0")
		return
	}
	if !strings.Contains(r.URL, "://") {
		p.fail(n, at, "URL %q has no scheme; want one of %s", r.URL, strings.Join(explain.Schemes(), ", "))
	} else if err := r.Check(); err != nil {
		p.fail(n, at, "%s", err)
	}
}

// names gives tests without a name one, and refuses equal ones.
func (p *parser) names(tests []*Test) {
	lines := map[string]int{}
	for _, t := range tests {
		if t.Name == "" {
			t.Name = t.Request.Method + " " + t.Request.URL + " from " + t.Request.From
			for _, h := range t.Request.Headers {
				t.Name += " " + h.Name + ":" + h.Value
			}
			if t.Request.ServerName != "" {
				t.Name += " for " + t.Request.ServerName
			}
		}
		if line, known := lines[t.Name]; known {
			p.errs = append(p.errs, &Error{p.file, t.Line, "", fmt.Sprintf("the test at line %d has the same name: %s", line, t.Name)})
		}
		lines[t.Name] = t.Line
	}
}
