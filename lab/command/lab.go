package command

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/zonewise/zonewise/lab/cluster"
)

func newDown() *cobra.Command {
	return &cobra.Command{
		Use: "down", Short: "Remove a lab and every trace of it, also after a crash", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			name := labName(cmd)
			if err := needRoot(cmd); err != nil {
				return err
			}
			show := newProgress(cmd.ErrOrStderr())
			show.start("Removing lab " + name)
			begin := time.Now()
			existed, err := cluster.Remove(name)
			if err != nil {
				show.fail()
				return err
			}
			show.done(time.Since(begin))
			if !existed {
				show.say("There was no lab %s.", name)
			}
			return nil
		},
	}
}

func newList() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "list", Short: "List the labs of this machine", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			names, err := cluster.Names()
			if err != nil {
				return err
			}
			type row struct {
				Name    string `json:"name"`
				Running bool   `json:"running"`
			}
			rows := []row{}
			for _, n := range names {
				rows = append(rows, row{n, cluster.Running(cluster.PathsOf(n))})
			}
			switch output {
			case "json":
				return printJSON(cmd.OutOrStdout(), map[string]any{"schema": "zonewise.labs/v1", "labs": rows})
			case "table":
			default:
				return usageError{fmt.Errorf("-o %s: use table or json", output)}
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "NAME\tSTATE")
			for _, r := range rows {
				state := "stopped"
				if r.Running {
					state = "running"
				}
				fmt.Fprintf(w, "%s\t%s\n", r.Name, state)
			}
			return w.Flush()
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	return cmd
}

func newKubeconfig() *cobra.Command {
	return &cobra.Command{
		Use: "kubeconfig", Short: "Print a lab's kubeconfig", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			name := labName(cmd)
			p := cluster.PathsOf(name)
			if _, err := cluster.LoadConfig(p); err != nil {
				return explain(name, err)
			}
			data, err := os.ReadFile(p.Kubeconfig())
			if errors.Is(err, os.ErrNotExist) {
				return explain(name, cluster.ErrNotRunning)
			}
			if err != nil {
				return explain(name, err)
			}
			_, err = cmd.OutOrStdout().Write(data)
			return err
		},
	}
}

func newLoad() *cobra.Command {
	return &cobra.Command{
		Use: "load FILE.tar…", Short: "Give a lab images from archives: OCI layouts, or what `docker save` writes",
		Args: args(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, files []string) error {
			name := labName(cmd)
			if _, err := status(cmd.Context(), name); err != nil {
				return err
			}
			show := newProgress(cmd.ErrOrStderr())
			for _, file := range files {
				full, err := filepath.Abs(file)
				if err != nil {
					return err
				}
				show.start("Loading " + filepath.Base(file))
				begin := time.Now()
				names, err := cluster.LoadImage(cmd.Context(), name, full)
				if err != nil {
					show.fail()
					return explain(name, err)
				}
				show.done(time.Since(begin))
				for _, n := range names {
					fmt.Fprintln(cmd.OutOrStdout(), n)
				}
			}
			return nil
		},
	}
}
