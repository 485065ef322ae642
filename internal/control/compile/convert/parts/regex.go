package parts

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"
)

// Bounds of regular expressions: of the text, in bytes, and of the instructions that proxies take.
const (
	maxRegex   = 1024
	maxProgram = 10000
)

// Regex checks an expression of RE2's syntax; nil when it is none.
func (p *Part) Regex(expression, field string) *regexp.Regexp {
	switch {
	case expression == "":
		p.Err("InvalidRegex", field, "", "the regular expression is empty")
	case len(expression) > maxRegex:
		p.Err("InvalidRegex", field, "", "the regular expression has %d bytes, more than %d", len(expression), maxRegex)
	default:
		compiled, err := compileRegex(expression)
		if err == nil {
			return compiled
		}
		p.Err("InvalidRegex", field, "see https://github.com/google/re2/wiki/Syntax", "not a regular expression of RE2: %s",
			strings.TrimPrefix(err.Error(), "error parsing regexp: "))
	}
	return nil
}

// compileRegex compiles an expression as proxies do, where it has to match from start to end.
func compileRegex(expression string) (*regexp.Regexp, error) {
	tree, err := syntax.Parse(expression, syntax.Perl)
	if err != nil {
		return nil, err
	}
	program, err := syntax.Compile(tree.Simplify())
	if err != nil {
		return nil, err
	}
	if n := len(program.Inst); n > maxProgram {
		return nil, fmt.Errorf("it becomes %d instructions, more than %d", n, maxProgram)
	}
	return regexp.Compile("^(?:" + expression + ")$")
}

// Substitution checks what replaces a match: a backslash stands before another, or before the number of a group.
func (p *Part) Substitution(by string, pattern *regexp.Regexp, field string) {
	if pattern == nil {
		return
	}
	for i := 0; i < len(by); i++ {
		if by[i] != '\\' {
			continue
		}
		i++
		group := i < len(by) && by[i] >= '0' && by[i] <= '9' && int(by[i]-'0') <= pattern.NumSubexp()
		if !group && (i == len(by) || by[i] != '\\') {
			p.Err("InvalidValue", field, `write \\ for a backslash`, "%q refers to a group that the expression does not have", by)
			return
		}
	}
}
