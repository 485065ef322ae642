// Package document reads the text of objects: it cuts files into documents, parses YAML and JSON into the same nodes, compares these
// with the Go or protobuf type that they must fit, and remembers where each value stands. It knows no kind of object.
package document

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"

	"github.com/weftmesh/weft/internal/control/model"
)

// Limits on what is read. They are far above real configuration and far below what would hurt.
const (
	MaxFileSize = 10 << 20
	maxDepth    = 100
	maxAliased  = 100_000 // nodes that aliases may add to a document
)

// Document is the text of one YAML document, and its first line in the file.
type Document struct {
	Text []byte
	Line int
}

// Split cuts a file at its document markers, so that a syntax error in one document leaves the others alone. A line that
// starts with "---" is a marker wherever it stands, inside block scalars too (YAML 1.2, section 9.1.2).
func Split(file string, data []byte) ([]Document, *model.Finding) {
	if len(data) > MaxFileSize {
		return nil, &model.Finding{Severity: model.Error, Code: "FileTooLarge", File: file,
			Message: fmt.Sprintf("it has more than %d bytes", MaxFileSize), Hint: "split the file"}
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	if !utf8.Valid(data) {
		return nil, &model.Finding{Severity: model.Error, Code: "NotText", File: file, Message: "the file is not UTF-8 text"}
	}
	var docs []Document
	start, startLine, line := 0, 1, 1
	for at := 0; at < len(data); line++ {
		end := len(data)
		if i := bytes.IndexByte(data[at:], '\n'); i >= 0 {
			end = at + i + 1
		}
		if at > start && isMarker(data[at:end]) {
			docs = append(docs, Document{data[start:at], startLine})
			start, startLine = at, line
		}
		at = end
	}
	return append(docs, Document{data[start:], startLine}), nil
}

func isMarker(line []byte) bool {
	rest, ok := bytes.CutPrefix(line, []byte("---"))
	return ok && (len(rest) == 0 || rest[0] == ' ' || rest[0] == '\t' || rest[0] == '\r' || rest[0] == '\n')
}

// Parse gives the roots in a text: none when it is empty, several only for JSON values in a row. Lines count from the start of
// the file, aliases and merge keys are resolved, keys of mappings are unique strings.
func Parse(file string, text []byte, line int) ([]*yaml.Node, *model.Finding) {
	fail := func(code, message string, line int) *model.Finding {
		return &model.Finding{Severity: model.Error, Code: code, File: file, Line: line, Message: message}
	}
	if isBlank(text) {
		return nil, nil
	}
	if c := bytes.TrimSpace(text)[0]; c == '{' || c == '[' {
		roots, err := parseJSON(text, line)
		if err == nil || strings.HasSuffix(strings.ToLower(file), ".json") {
			return roots, asFinding(err, fail)
		}
	}
	root, err := parseYAML(text, line)
	if err != nil || root == nil {
		return nil, asFinding(err, fail)
	}
	return []*yaml.Node{root}, nil
}

func asFinding(err error, fail func(code, message string, line int) *model.Finding) *model.Finding {
	var p *parseError
	if !errors.As(err, &p) {
		return nil
	}
	return fail(p.code, p.message, p.line)
}

// isBlank reports whether a text holds only comments, markers, directives and white space.
func isBlank(text []byte) bool {
	for line := range bytes.Lines(text) {
		line = bytes.TrimSpace(line)
		if bytes.HasPrefix(line, []byte("---")) {
			line = bytes.TrimSpace(line[3:])
		}
		if len(line) > 0 && line[0] != '#' && line[0] != '%' && string(line) != "..." {
			return false
		}
	}
	return true
}

// parseError is what is wrong with a text, and where.
type parseError struct {
	code, message string
	line          int
}

func (e *parseError) Error() string { return fmt.Sprintf("line %d: %s", e.line, e.message) }

var yamlLine = regexp.MustCompile(`^(?:yaml: )?(?:line (\d+): )?`)

// parseYAML parses one document; the root is nil when it is null.
func parseYAML(text []byte, line int) (*yaml.Node, error) {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc, more yaml.Node
	if err := dec.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, nil
		}
		return nil, syntaxError(err, line)
	}
	if err := dec.Decode(&more); err == nil {
		return nil, &parseError{"SyntaxError", "a second document starts without a line `---` before it", more.Line + line - 1}
	} else if !errors.Is(err, io.EOF) {
		return nil, syntaxError(err, line)
	}
	if len(doc.Content) != 1 {
		return nil, nil
	}
	root := doc.Content[0]
	shift(root, line-1)
	r := resolver{aliased: maxAliased}
	if err := r.resolve(root, 0); err != nil {
		return nil, err
	}
	if isNull(root) {
		return nil, nil
	}
	return root, nil
}

// oneShort are the messages for which the parser counts lines from 0 and not, as otherwise, from 1.
var oneShort = []string{"<stream-start>", "<document start>", "node content", "'-' indicator", "key", "',' or ']'", "',' or '}'"}

// syntaxError takes the line out of the parser's message.
func syntaxError(err error, line int) error {
	m := yamlLine.FindStringSubmatch(err.Error())
	message := strings.TrimPrefix(err.Error(), m[0])
	if n, atoi := strconv.Atoi(m[1]); atoi == nil {
		line += n - 1
		if expected, ok := strings.CutPrefix(message, "did not find expected "); ok && slices.Contains(oneShort, expected) {
			line++
		}
	}
	if message == "found character that cannot start any token" {
		message = "a tab, or a character that has to stand in quotes (indent with spaces)"
	}
	return &parseError{"SyntaxError", "not valid YAML: " + message, line}
}

// shift moves the lines of a tree; aliases point into it and are left alone.
func shift(n *yaml.Node, by int) {
	n.Line += by
	for _, c := range n.Content {
		shift(c, by)
	}
}

// resolver replaces aliases by copies of what they stand for, and merge keys by what they bring, within limits.
type resolver struct{ aliased int }

func (r *resolver) resolve(n *yaml.Node, depth int) error {
	if depth > maxDepth {
		return &parseError{"TooDeep", fmt.Sprintf("nested more than %d levels deep", maxDepth), n.Line}
	}
	for i, c := range n.Content {
		if c.Kind == yaml.AliasNode {
			copied, err := r.copyOf(c.Alias, depth, c)
			if err != nil {
				return err
			}
			n.Content[i] = copied
			c = copied
		}
		if err := r.resolve(c, depth+1); err != nil {
			return err
		}
	}
	n.Anchor, n.HeadComment, n.LineComment, n.FootComment = "", "", "", ""
	if n.Kind != yaml.MappingNode {
		return nil
	}
	if err := r.merge(n); err != nil {
		return err
	}
	return uniqueKeys(n)
}

// copyOf copies a subtree, following aliases in it. A cycle ends at the depth limit, a bomb at the budget.
func (r *resolver) copyOf(n *yaml.Node, depth int, alias *yaml.Node) (*yaml.Node, error) {
	if r.aliased--; r.aliased < 0 {
		return nil, &parseError{"TooManyAliases", fmt.Sprintf("aliases add more than %d values", maxAliased), alias.Line}
	}
	if depth > maxDepth {
		return nil, &parseError{"TooDeep", fmt.Sprintf("aliases nest more than %d levels deep", maxDepth), alias.Line}
	}
	if n.Kind == yaml.AliasNode {
		return r.copyOf(n.Alias, depth+1, alias)
	}
	c := *n
	c.Content = make([]*yaml.Node, len(n.Content))
	for i, child := range n.Content {
		copied, err := r.copyOf(child, depth+1, alias)
		if err != nil {
			return nil, err
		}
		c.Content[i] = copied
	}
	return &c, nil
}

// merge replaces "<<" keys (YAML's merge type): keys that are written win, then earlier merges.
func (r *resolver) merge(n *yaml.Node) error {
	var own, merged []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.Tag != "!!merge" {
			own = append(own, k, v)
			continue
		}
		from := []*yaml.Node{v}
		if v.Kind == yaml.SequenceNode {
			from = v.Content
		}
		for _, m := range from {
			if m.Kind != yaml.MappingNode {
				return &parseError{"SyntaxError", "a merge key (<<) takes a mapping or a list of them", k.Line}
			}
			merged = append(merged, m.Content...)
		}
	}
	if merged == nil {
		return nil
	}
	seen := map[string]bool{}
	for i := 0; i < len(own); i += 2 {
		seen[own[i].Value] = true
	}
	for i := 0; i+1 < len(merged); i += 2 {
		if k := merged[i].Value; !seen[k] {
			seen[k] = true
			own = append(own, merged[i], merged[i+1])
		}
	}
	n.Content = own
	return nil
}

func uniqueKeys(n *yaml.Node) error {
	seen := make(map[string]int, len(n.Content)/2)
	for i := 0; i < len(n.Content); i += 2 {
		k := n.Content[i]
		if k.Kind != yaml.ScalarNode {
			return &parseError{"SyntaxError", "a key is not a string", k.Line}
		}
		if line, repeated := seen[k.Value]; repeated {
			return &parseError{"DuplicateKey", fmt.Sprintf("key %q is already set at line %d", k.Value, line), k.Line}
		}
		seen[k.Value] = k.Line
	}
	return nil
}

// parseJSON parses JSON values in a row into the same nodes as YAML.
func parseJSON(text []byte, line int) ([]*yaml.Node, error) {
	p := &jsonParser{dec: json.NewDecoder(bytes.NewReader(text)), text: text, line: line}
	p.dec.UseNumber()
	var roots []*yaml.Node
	for {
		n, err := p.value(0)
		if errors.Is(err, io.EOF) {
			return roots, nil
		}
		var placed *parseError
		if err != nil && !errors.As(err, &placed) {
			return nil, &parseError{"SyntaxError", "not valid JSON: " + err.Error(), p.here()}
		}
		if err != nil {
			return nil, err
		}
		roots = append(roots, n)
	}
}

type jsonParser struct {
	dec  *json.Decoder
	text []byte
	at   int // offset up to which lines are counted
	line int
}

// here is the line of the last token: no token spans lines.
func (p *jsonParser) here() int {
	to := int(p.dec.InputOffset())
	p.line += bytes.Count(p.text[p.at:to], []byte{'\n'})
	p.at = to
	return p.line
}

func (p *jsonParser) value(depth int) (*yaml.Node, error) {
	t, err := p.dec.Token()
	if err != nil {
		return nil, err
	}
	n := &yaml.Node{Kind: yaml.ScalarNode, Line: p.here(), Column: 1}
	if depth > maxDepth {
		return nil, &parseError{"TooDeep", fmt.Sprintf("nested more than %d levels deep", maxDepth), n.Line}
	}
	switch t := t.(type) {
	case json.Delim:
		return n, p.composite(n, t, depth)
	case string:
		n.Tag, n.Value, n.Style = "!!str", t, yaml.DoubleQuotedStyle
	case json.Number:
		n.Tag, n.Value = "!!float", t.String()
		if _, err := strconv.ParseInt(t.String(), 10, 64); err == nil {
			n.Tag = "!!int"
		}
	case bool:
		n.Tag, n.Value = "!!bool", strconv.FormatBool(t)
	case nil:
		n.Tag, n.Value = "!!null", "null"
	}
	return n, nil
}

func (p *jsonParser) composite(n *yaml.Node, open json.Delim, depth int) error {
	n.Kind, n.Tag = yaml.SequenceNode, "!!seq"
	if open == '{' {
		n.Kind, n.Tag = yaml.MappingNode, "!!map"
	}
	for p.dec.More() {
		c, err := p.value(depth + 1)
		if err != nil {
			return noEOF(err)
		}
		n.Content = append(n.Content, c)
	}
	if _, err := p.dec.Token(); err != nil {
		return noEOF(err)
	}
	if n.Kind == yaml.MappingNode {
		return uniqueKeys(n)
	}
	return nil
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// FromLine gives a text from its nth line on, counted from 0.
func FromLine(text []byte, n int) []byte {
	for ; n > 0; n-- {
		i := bytes.IndexByte(text, '\n')
		if i < 0 {
			return nil
		}
		text = text[i+1:]
	}
	return bytes.Clone(text)
}

// Replace puts a word in another's place, at a line and a column of a text that are counted from 0, in characters. What stands there
// and is something else stays.
func Replace(text []byte, line, column int, old, by string) []byte {
	at := 0
	for ; line > 0; line-- {
		i := bytes.IndexByte(text[at:], '\n')
		if i < 0 {
			return text
		}
		at += i + 1
	}
	for ; column > 0 && at < len(text); column-- {
		_, size := utf8.DecodeRune(text[at:])
		at += size
	}
	if !bytes.HasPrefix(text[at:], []byte(old)) {
		return text
	}
	return slices.Concat(text[:at], []byte(by), text[at+len(old):])
}
