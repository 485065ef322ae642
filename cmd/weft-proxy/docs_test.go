package main

import (
	"bytes"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/weftmesh/weft/internal/wire"
)

// TestDocs compares the operators' page with the flags and the fields of the bootstrap file, both ways.
func TestDocs(t *testing.T) {
	raw, err := os.ReadFile("../../docs/proxy.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(raw)
	var usage bytes.Buffer
	run(t.Context(), []string{"-h"}, &usage, &usage)
	flags := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^  -([a-z]+)`).FindAllStringSubmatch(usage.String(), -1) {
		flags[m[1]] = true
		if !strings.Contains(page, "| `--"+m[1]+"` |") {
			t.Errorf("docs/proxy.md does not explain --%s", m[1])
		}
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `--([a-z]+)`").FindAllStringSubmatch(page, -1) {
		if !flags[m[1]] {
			t.Errorf("docs/proxy.md explains --%s, which does not exist", m[1])
		}
	}
	fields := reflect.TypeFor[wire.Bootstrap]()
	for i := range fields.NumField() {
		name, _, _ := strings.Cut(fields.Field(i).Tag.Get("json"), ",")
		if !strings.Contains(page, "`"+name+"`") {
			t.Errorf("docs/proxy.md does not explain the field %s of the bootstrap file", name)
		}
	}
}
