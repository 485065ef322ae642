package cli

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

var update = flag.Bool("update", false, "write generated files anew")

// TestGoldenCommandsDocument keeps docs/commands.md equal to what --help says.
func TestGoldenCommandsDocument(t *testing.T) {
	s := &session{out: newOutput(&bytes.Buffer{}, &bytes.Buffer{})}
	var b strings.Builder
	b.WriteString("# Commands\n\nWritten from the program's own help; `weft COMMAND --help` says the same.\n")
	root := s.root()
	root.InitDefaultHelpCmd()
	describe(&b, root)
	file := filepath.Join("..", "..", "docs", "commands.md")
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != b.String() {
		t.Error("docs/commands.md is not current: go test ./internal/cli -run Golden -update")
	}
}

// TestExamplesCanBePasted wants what examples say of commands to be comments of the shell.
func TestExamplesCanBePasted(t *testing.T) {
	s := &session{out: newOutput(&bytes.Buffer{}, &bytes.Buffer{})}
	var each func(c *cobra.Command)
	each = func(c *cobra.Command) {
		for line := range strings.Lines(c.Example) {
			command, _, _ := strings.Cut(line, "  #")
			if strings.Contains(strings.TrimSpace(command), "  ") {
				t.Errorf("%s: %q has words that are no part of the command", c.CommandPath(), line)
			}
		}
		for _, sub := range c.Commands() {
			each(sub)
		}
	}
	each(s.root())
}

func describe(b *strings.Builder, c *cobra.Command) {
	if c.Hidden || c.Name() == "help" || c.Name() == "completion" {
		return
	}
	about := c.Long
	if about == "" {
		about = c.Short + "."
	}
	use := c.UseLine()
	fmt.Fprintf(b, "\n## %s\n\n%s\n\n    %s\n", c.CommandPath(), about, use)
	if c.Example != "" {
		fmt.Fprintf(b, "\nExamples:\n\n```\n%s\n```\n", c.Example)
	}
	if flags := c.LocalNonPersistentFlags().FlagUsages(); strings.TrimSpace(flags) != "" {
		fmt.Fprintf(b, "\nOptions:\n\n```\n%s```\n", flags)
	}
	if flags := c.PersistentFlags().FlagUsages(); strings.TrimSpace(flags) != "" {
		fmt.Fprintf(b, "\nOptions of every command:\n\n```\n%s```\n", flags)
	}
	for _, sub := range c.Commands() {
		describe(b, sub)
	}
}

func TestEveryCommandExplainsItself(t *testing.T) {
	s := &session{out: newOutput(&bytes.Buffer{}, &bytes.Buffer{})}
	for _, c := range s.root().Commands() {
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: short description %q", c.Name(), c.Short)
		}
		if c.Example == "" && c.Name() != "completion" {
			t.Errorf("%s has no example", c.Name())
		}
	}
}
