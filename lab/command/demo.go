package command

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/zonewise/zonewise/lab/cluster"
	"github.com/zonewise/zonewise/lab/demo"
	"github.com/zonewise/zonewise/lab/topology"
)

// demoName is the demo's own lab, where no other is named.
const demoName = "demo"

// A batch below the least might miss a zone by chance: with 50, once in 200 million.
const (
	leastRequests = 50
	mostRequests  = 10000
)

type demoFlags struct {
	keep     bool
	requests int
	rate     float64
}

func newDemo() *cobra.Command {
	var f demoFlags
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Boot a lab, drive traffic, show what crosses zones and what it costs",
		Long: "Boot a lab named demo, unless it or the lab of --name runs already; send requests to a Service\n" +
			"over its zones, without zone hints, with them, and after all but one of its pods are gone; show\n" +
			"what crossed zones and what that costs. A lab that the demo made goes away again at its end.",
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return runDemo(cmd, f) },
	}
	flags := cmd.Flags()
	flags.BoolVar(&f.keep, "keep", false, "leave everything running at the end")
	flags.IntVar(&f.requests, "requests", 100, "requests in each step")
	flags.Float64Var(&f.rate, "rate-per-second", 1000, "requests a second for which the cost is worked out")
	return cmd
}

func runDemo(cmd *cobra.Command, f demoFlags) error {
	switch {
	case f.requests < leastRequests || f.requests > mostRequests:
		return usageError{fmt.Errorf("--requests %d: use %d to %d", f.requests, leastRequests, mostRequests)}
	case f.rate <= 0:
		return usageError{fmt.Errorf("--rate-per-second %g: use more than 0", f.rate)}
	}
	name := demoName
	if cmd.Flags().Changed("name") {
		name = labName(cmd)
	}
	if err := needRoot(cmd); err != nil {
		return err
	}
	config := topology.Config{Name: name, Offline: true} // every image it needs is built in
	if _, err := topology.New(config); err != nil {
		return usageError{err}
	}
	ctx, show := cmd.Context(), newProgress(cmd.ErrOrStderr())
	_, err := cluster.LoadConfig(cluster.PathsOf(name))
	ours := errors.Is(err, cluster.ErrNotFound)
	if !ours && cluster.Running(cluster.PathsOf(name)) {
		show.say("Using lab %s, which runs already.", name)
	} else if err := startLab(ctx, config.WithDefaults(), 2*time.Minute, show); err != nil {
		return err
	}
	err = experiment(ctx, name, f, cmd.OutOrStdout(), show.color)
	return errors.Join(err, endDemo(ctx, name, ours, f.keep, show))
}

func experiment(ctx context.Context, name string, f demoFlags, out io.Writer, color bool) error {
	s, err := status(ctx, name)
	if err != nil {
		return err
	}
	if s.Proxy != topology.ProxyZonewise {
		return fmt.Errorf("lab %s runs %s: the demo needs a lab whose proxy is %s", name, s.Proxy, topology.ProxyZonewise)
	}
	bin, err := binDir()
	if err != nil {
		return err
	}
	o := demo.Options{
		Setup:    fmt.Sprintf("export PATH=%s:$PATH KUBECONFIG=%s", bin, s.Kubeconfig),
		Manifest: filepath.Join(cluster.PathsOf(name).Dir, "demo.yaml"),
		Requests: f.requests, Rate: f.rate, Out: out, Color: color,
		Shell: shell(bin, s.Kubeconfig),
		Crossed: func(ctx context.Context) (uint64, error) {
			s, err := status(ctx, name)
			return s.CrossPods, err
		},
	}
	for _, z := range s.Zones {
		zone := demo.Zone{Name: z.Name}
		for _, n := range z.Nodes {
			zone.Nodes = append(zone.Nodes, n.Name)
		}
		o.Zones = append(o.Zones, zone)
	}
	return demo.Run(ctx, o)
}

// binDir is where the programs of one build lie together.
func binDir() (string, error) {
	self, err := os.Executable()
	return filepath.Dir(self), err
}

// shell runs the programs that lie beside this one, against the lab.
func shell(bin, kubeconfig string) demo.Shell {
	return func(ctx context.Context, argv ...string) (string, error) {
		cmd := exec.CommandContext(ctx, filepath.Join(bin, argv[0]), argv[1:]...)
		cmd.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig)
		var out, problem bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &problem
		err := cmd.Run()
		switch {
		case ctx.Err() != nil:
			return "", ctx.Err()
		case err != nil:
			return "", fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, strings.TrimSpace(problem.String()))
		}
		return out.String(), nil
	}
}

// endDemo removes what the demo made: the lab if it is ours, else the demo's namespace. It does so
// after Ctrl-C as well.
func endDemo(ctx context.Context, name string, ours, keep bool, show *progress) error {
	show.say("")
	var err error
	switch {
	case keep:
		show.say("Lab %s is left running: `sudo zonewise lab down%s` removes it.", name, nameFlag(name))
	case ours:
		show.start("Removing lab " + name)
		_, err = cluster.Remove(name)
	default:
		show.start("Removing namespace demo of lab " + name)
		err = clean(context.WithoutCancel(ctx), name)
	}
	if err != nil {
		show.fail()
		return err
	}
	show.finish()
	if ctx.Err() != nil {
		show.say("Interrupted.")
		return exitError{exitInterrupted}
	}
	return nil
}

func clean(ctx context.Context, name string) error {
	bin, err := binDir()
	if err != nil {
		return err
	}
	_, err = shell(bin, cluster.PathsOf(name).Kubeconfig())(ctx, demo.Clean...)
	return err
}
