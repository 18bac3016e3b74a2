package bench

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/zonewise/zonewise/lab/bench/driver"
	"github.com/zonewise/zonewise/lab/rig/peer"
)

// Main is the program: it runs benchmarks, or is one of their clients or servers.
func Main(args []string, stdout, stderr io.Writer) int {
	err := role(args, stdout, stderr)
	switch {
	case err == nil:
		return 0
	case errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errUsage):
		fmt.Fprintln(stderr, err)
		return 2
	}
	fmt.Fprintln(stderr, "bench:", err)
	return 1
}

var errUsage = errors.New("bench: wrong use; see bench --help")

func role(args []string, stdout, stderr io.Writer) error {
	if len(args) == 3 && (args[1] == "driver" || args[1] == "server") {
		cpu, err := strconv.Atoi(args[2])
		if err != nil {
			return errors.Join(errUsage, err)
		}
		if err := driver.Pin(cpu); err != nil {
			return err
		}
		if args[1] == "driver" {
			return driver.Main(os.Stdin, stdout)
		}
		return driver.Serve(os.Stdin, stdout)
	}
	if len(args) > 1 && args[1] == "pods" {
		return measurePods(args[2:], stdout, stderr)
	}
	return measure(args[1:], stdout, stderr)
}

func measure(args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	full := Full()
	var (
		short    = flags.Bool("short", false, "a little of everything; fails if any row has no figure")
		rounds   = flags.Int("rounds", 0, "rounds; 0: 5, or 2 if short; what takes long has fewer")
		limit    = flags.Duration("limit", 0, "time for a peer to do all Services; 0: 10m, or 1m if short")
		only     = flags.String("only", "", "benchmarks to run, with commas: "+strings.Join(Names(), ","))
		peers    = flags.String("peers", "", "peers to run, with commas; none: all")
		services = flags.Int("services", 0, "no load with more Services than this; 0: any")
		bin      = flags.String("bin", "bin", "directory of the programs zonewise and zonewise-lab")
		out      = flags.String("out", filepath.Join("lab", "bench", "out"), "directory for figures and plots")
		page     = flags.String("page", "", "Markdown file whose table of figures is written anew")
		resume   = flags.Bool("resume", false, "go on with what is in --out: what is done there is kept, and not done again")
		patient  = flags.Bool("patient", false, "let kube-proxy try also what takes it very long: up to --limit for each size")
		from     = flags.String("from", "", "file of figures to show again, instead of measuring")
		seed     = flags.Uint64("seed", full.Seed, "of what is picked at random")
	)
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return errors.Join(errUsage, err)
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("%w: unexpected %q", errUsage, flags.Arg(0))
	}
	if *from != "" {
		result, err := Read(*from)
		if err != nil {
			return err
		}
		return show(result, stdout, stderr, *out, *page, true)
	}
	c := full
	if *short {
		c = Short()
	}
	c.Peers, c.Seed, c.Log, c.Patient = peer.Kinds(), *seed, stderr, *patient
	c.Save = func(r Result) error { _, err := r.write(*out); return err }
	if *rounds > 0 {
		c.Rounds = *rounds
	}
	if *limit > 0 {
		c.Limit = *limit
	}
	if *services > 0 {
		c.effort = c.upTo(*services)
	}
	var err error
	if c.Bin, err = filepath.Abs(*bin); err != nil {
		return err
	}
	if c.Peers, err = pick(*peers, peer.Kinds()); err != nil {
		return err
	}
	if c.Only, err = pick(*only, Names()); err != nil {
		return err
	}
	if *resume {
		if c.Before, err = Read(filepath.Join(*out, fileName(*short))); err != nil {
			return err
		}
		if c.Before.Machine != machine() {
			return fmt.Errorf("what is in %s was measured on another machine: %s", *out, c.Before.Machine)
		}
	}
	// Worlds are taken down where the run is interrupted, too.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	result, err := Run(ctx, c)
	return errors.Join(show(result, stdout, stderr, *out, *page, false), err)
}

// pick is what a list with commas names; an empty one names all.
func pick[T ~string](list string, all []T) (out []T, err error) {
	if list == "" {
		return all, nil
	}
	for name := range strings.SplitSeq(list, ",") {
		found := false
		for _, a := range all {
			if name == string(a) {
				out, found = append(out, a), true
			}
		}
		if !found {
			return nil, fmt.Errorf("%w: no %q among %v", errUsage, name, all)
		}
	}
	return out, nil
}

// show prints a result and puts it into files.
func show(r Result, stdout, stderr io.Writer, out, page string, again bool) error {
	if err := r.Table(stdout); err != nil {
		return err
	}
	if !again {
		name, err := r.write(out)
		if err != nil {
			return err
		}
		fmt.Fprintln(stderr, name)
	}
	names, err := r.plot(out)
	for _, name := range names {
		fmt.Fprintln(stderr, name)
	}
	if err != nil || page == "" {
		return err
	}
	return r.page(page)
}

// upTo leaves out what is larger.
func (e effort) upTo(services int) effort {
	for _, sizes := range []*[]int{&e.sizes, &e.rateSizes, &e.streamSizes, &e.changeSizes, &e.churnSizes} {
		*sizes = filter(*sizes, func(n int) bool { return n <= services })
	}
	e.cold = filter(e.cold, func(l load) bool { return l.Services <= services })
	return e
}

func filter[T any](all []T, keep func(T) bool) (out []T) {
	for _, one := range all {
		if keep(one) {
			out = append(out, one)
		}
	}
	return out
}
