package document

import (
	"regexp"
	"strings"
)

// IsTest reports whether a file in a folder of objects may be one of weft test, by its name.
func IsTest(name string) bool {
	return strings.HasSuffix(name, "_test.yaml") || strings.HasSuffix(name, "_test.yml") || strings.HasSuffix(name, "_test.txtar")
}

// HoldsTests reports whether a file that may hold tests does: their list is a field that no object has.
func HoldsTests(data []byte) bool { return tests.Match(data) }

// tests is the field that every file of tests has.
var tests = regexp.MustCompile(`(?m)^["']?tests["']?:`)
