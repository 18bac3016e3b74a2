package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"
)

// output is the value of -o.
type output struct {
	format  string
	allowed []string
}

// outputFlag adds -o with the formats that the command knows; the first is the default.
func outputFlag(c *cobra.Command, formats ...string) *output {
	o := &output{format: formats[0], allowed: formats}
	c.Flags().VarP(o, "output", "o", "form of the result: "+strings.Join(formats, ", "))
	complete(c, "output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
	return o
}

// String, Set and Type are pflag.Value.
func (o *output) String() string { return o.format }

// Type is what the help shows.
func (o *output) Type() string { return "format" }

// Set refuses a format that the command does not know.
func (o *output) Set(s string) error {
	if !slices.Contains(o.allowed, s) {
		return fmt.Errorf("must be one of %s", strings.Join(o.allowed, ", "))
	}
	o.format = s
	return nil
}

// print writes v as JSON or YAML, or lets people's form be written by text.
func (o *output) print(w io.Writer, v any, text func(io.Writer) error) error {
	switch o.format {
	case "json":
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(v)
	case "yaml":
		b, err := yaml.Marshal(v)
		if err != nil {
			return err
		}
		_, err = w.Write(b)
		return err
	}
	return text(w)
}
