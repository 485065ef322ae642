package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"gopkg.in/yaml.v3"
)

// format is how a command writes what it found: as text for people when empty.
type format struct {
	name  string
	takes []string
}

// flag has a command take -o, with JSON, YAML and other formats of its own; help says what those are.
func (f *format) flag(c *cobra.Command, help string, others ...string) {
	f.takes = append([]string{"json", "yaml"}, others...)
	c.Flags().VarP(f, "output", "o", help)
}

func (f *format) String() string { return f.name }
func (f *format) Type() string   { return "string" }

// Set takes the flag's value.
func (f *format) Set(name string) error {
	if !slices.Contains(f.takes, name) {
		return errors.New("want " + strings.Join(f.takes[:len(f.takes)-1], ", ") + " or " + f.takes[len(f.takes)-1])
	}
	f.name = name
	return nil
}

// write writes a value as JSON or YAML; it is false, and nothing written, for other formats.
func (f *format) write(o *output, v any) (bool, error) {
	switch f.name {
	case "json":
		return true, o.json(v)
	case "yaml":
		return true, o.yaml(v)
	}
	return false, nil
}

// yaml writes what json writes, fields in the same order.
func (o *output) yaml(v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var n yaml.Node
	if err := yaml.Unmarshal(text, &n); err != nil {
		return err
	}
	plainStyle(&n)
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(&n); err != nil {
		return err
	}
	_, err = o.out.Write(b.Bytes())
	return err
}

// plainStyle forgets that a tree was written as JSON.
func plainStyle(n *yaml.Node) {
	n.Style &^= yaml.FlowStyle | yaml.DoubleQuotedStyle
	for _, c := range n.Content {
		plainStyle(c)
	}
}
