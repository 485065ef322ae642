package document

import (
	"cmp"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// Join appends a key to a field path: `a.b`, or `a["b.c"]` where the key is not a plain word.
func Join(path, key string) string {
	if !plainKey(key) {
		return path + "[" + strconv.Quote(key) + "]"
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

func plainKey(key string) bool {
	for i := range len(key) {
		if strings.IndexByte(`.[]" `, key[i]) >= 0 {
			return false
		}
	}
	return key != ""
}

// steps splits a field path: strings are keys, ints are places in a list. It stops at what it cannot read.
func steps(path string) []any {
	var out []any
	for path != "" {
		switch {
		case path[0] == '.':
			path = path[1:]
		case strings.HasPrefix(path, `["`):
			quoted, err := strconv.QuotedPrefix(path[1:])
			if err != nil {
				return out
			}
			key, _ := strconv.Unquote(quoted)
			out = append(out, key)
			path = strings.TrimPrefix(path[1+len(quoted):], "]")
		case path[0] == '[':
			digits, rest, _ := strings.Cut(path[1:], "]")
			i, err := strconv.Atoi(digits)
			if err != nil {
				return out
			}
			out, path = append(out, i), rest
		default:
			end := strings.IndexAny(path, ".[")
			if end < 0 {
				end = len(path)
			}
			out, path = append(out, path[:end]), path[end:]
		}
	}
	return out
}

// Within reports whether a field path is another, or part of it.
func Within(field, other string) bool {
	rest, ok := strings.CutPrefix(field, other)
	return ok && (other == "" || rest == "" || rest[0] == '.' || rest[0] == '[')
}

// ComparePaths orders field paths as text, save that places in lists go by their number: hosts[2] is before hosts[10].
func ComparePaths(a, b string) int {
	for a != "" && b != "" {
		i, restA := leadingNumber(a)
		j, restB := leadingNumber(b)
		switch {
		case restA != a && restB != b:
			if i != j {
				return cmp.Compare(i, j)
			}
			a, b = restA, restB
		case a[0] != b[0]:
			return cmp.Compare(a[0], b[0])
		default:
			a, b = a[1:], b[1:]
		}
	}
	return cmp.Compare(len(a), len(b))
}

// leadingNumber gives the place in a list at the start of a path, and what follows: all of it where there is none.
func leadingNumber(path string) (int, string) {
	if path[0] != '[' {
		return 0, path
	}
	digits, rest, _ := strings.Cut(path[1:], "]")
	i, err := strconv.Atoi(digits)
	if err != nil {
		return 0, path
	}
	return i, rest
}

// Locate finds the node where a path is written: the key of a field, the entry of a list, or the nearest ancestor of what is not
// written.
func Locate(root *yaml.Node, path string) *yaml.Node {
	if n := along(root, steps(path)); n != nil {
		return n
	}
	return root
}

// along goes along a path as Locate does; nil when not even its first step is written. It looks into documents that stand in a literal
// block.
func along(root *yaml.Node, path []any) (at *yaml.Node) {
	n := root
	for _, step := range path {
		switch step := step.(type) {
		case int:
			if n == nil || n.Kind != yaml.SequenceNode || step < 0 || step >= len(n.Content) {
				return at
			}
			n = n.Content[step]
			at = n
		case string:
			if n != nil && isLiteral(n) {
				n = innards{text: n.Value, line: n.Line + 1}.nodes()
			}
			if n == nil {
				return at
			}
			k, v := Entry(n, step)
			if k == nil {
				return at
			}
			at, n = k, v
		}
	}
	return at
}

// Entry gives a key of a mapping, and its value; nil when there is none.
func Entry(n *yaml.Node, key string) (k, v *yaml.Node) {
	if n.Kind != yaml.MappingNode {
		return nil, nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i], n.Content[i+1]
		}
	}
	return nil, nil
}

// Field gives the value of a key; an empty node when there is none.
func Field(n *yaml.Node, key string) *yaml.Node {
	if _, v := Entry(n, key); v != nil {
		return v
	}
	return &yaml.Node{Line: n.Line, Column: n.Column}
}

// DidYouMean gives a hint for a misspelt name: the nearest of the known ones, if it is near.
func DidYouMean(name string, known []string) string {
	best, bestDistance := "", 3
	for _, k := range known {
		if strings.EqualFold(k, strings.ReplaceAll(name, "_", "")) {
			return "did you mean " + k + "?"
		}
		if d := distance(name, k); d < bestDistance && d < len(k) {
			best, bestDistance = k, d
		}
	}
	if best == "" {
		return ""
	}
	return "did you mean " + best + "?"
}

// distance is Levenshtein's, for short names; longer ones are far from everything.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			substitute := diagonal
			if a[i] != b[j] {
				substitute++
			}
			diagonal = row[j+1]
			row[j+1] = min(substitute, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
