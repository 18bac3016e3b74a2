package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/zonewise/zonewise/internal/cli/report"
	"github.com/zonewise/zonewise/internal/controller/view"
	"github.com/zonewise/zonewise/internal/meter"
)

// views are what top can show.
var views = []string{"services", "zones", "flows", "namespaces", "workloads"}

// top is one run of the command.
type top struct {
	*trafficFlags
	by    string
	order meter.Order
	limit int
	every time.Duration
}

func topCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "top [services|zones|flows|namespaces|workloads|label:KEY]",
		Short: "Show who sends how much, how much of it leaves its zone, why, and for how much a month",
		Long: `Show traffic as it is now: rate, in-zone share, USD a month at this rate, and why bytes crossed zones.
On a terminal it goes on until q; keys change what lines are sorted by. Elsewhere, and with --once or another
form, it is shown once.

  services    by the Service that was dialled (the default)
  zones       from zone to zone
  flows       each client, Service and server
  namespaces  by the namespace that pays: the client's
  workloads   by the workload that opened connections
  label:KEY   by a label of that namespace

It asks the controller that leads, through the API server (pods/portforward).`,
		Example:   "  zonewise top\n  zonewise top zones --once\n  zonewise top flows -n shop --sort cost\n  zonewise top services --since 24h --limit 10 -o json",
		ValidArgs: views,
		Args:      atMost("VIEW"),
	}
	t := top{every: 3 * time.Second, order: meter.ByBytes}
	once := c.Flags().Bool("once", false, "show it once, on a terminal, too")
	c.Flags().Var((*orderFlag)(&t.order), "sort", "what lines are sorted by: "+orders())
	complete(c, "sort", cobra.FixedCompletions(strings.Split(orders(), ", "), cobra.ShellCompDirectiveNoFileComp))
	c.Flags().IntVar(&t.limit, "limit", 0, "so many lines at most; 0: all, or as many as the terminal shows")
	c.Flags().DurationVar(&t.every, "every", t.every, "time between two looks on a terminal")
	out := outputFlag(c, "table", "json", "yaml")
	t.trafficFlags = addTrafficFlags(c, "1m")
	c.RunE = func(c *cobra.Command, args []string) error {
		t.by = append(args, views[0])[0]
		if key, label := strings.CutPrefix(t.by, "label:"); !slices.Contains(views, t.by) && (!label || key == "") {
			return usagef("zonewise top %q: must be one of %s or label:KEY", t.by, strings.Join(views, ", "))
		}
		if t.limit < 0 {
			return usagef("--limit: %d is less than 0", t.limit)
		}
		if t.every < time.Second {
			return usagef("--every: %v is less than 1s", t.every)
		}
		leader, err := t.access.leader()
		if err != nil {
			return err
		}
		if in, to := terminal(c); in != nil && !*once && out.format == "table" {
			return t.live(c.Context(), leader, in, to)
		}
		return t.once(c, leader, out)
	}
	return c
}

// terminal returns where keys come from and tables go to, if that is a terminal.
func terminal(c *cobra.Command) (in, out *os.File) {
	in, isIn := c.InOrStdin().(*os.File)
	out, isOut := c.OutOrStdout().(*os.File)
	if !isIn || !isOut || !term.IsTerminal(int(in.Fd())) || !term.IsTerminal(int(out.Fd())) {
		return nil, nil
	}
	return in, out
}

// query is what the controller is asked for; limit 0 is for all.
func (t *top) query(limit int) (url.Values, error) {
	q, err := t.trafficFlags.query()
	if err != nil {
		return nil, err
	}
	q.Set("by", t.by)
	q.Set("order", string(t.order))
	if limit > 0 {
		q.Set("limit", strconv.Itoa(limit))
	}
	return q, nil
}

func (t *top) once(c *cobra.Command, leader *leader, out *output) error {
	q, err := t.query(t.limit)
	if err != nil {
		return err
	}
	result, err := get[view.Traffic](c.Context(), leader, "/v1/traffic", q)
	if err != nil {
		return err
	}
	notes(c, result.Notes)
	return t.show(c, out, result, q, silent(result), func(w io.Writer, at report.Place) error {
		return report.Traffic(w, result, t.order, report.Place{Width: at.Width})
	})
}

func silent(t view.Traffic) bool { return len(t.Lines) == 0 && len(t.Zones) == 0 }

// seen is an answer, and the order that was asked for.
type seen struct {
	traffic view.Traffic
	order   meter.Order
	err     error
}

// sortKeys are what a key sorts by.
var sortKeys = map[byte]meter.Order{'b': meter.ByBytes, 'x': meter.ByCross, '$': meter.ByCost, 'u': meter.ByCost,
	'i': meter.ByInZone, 'p': meter.ByPackets, 'c': meter.ByOpened, 'n': meter.ByName}

const (
	ctrlC = 3
	help  = "sort: b bytes  x cross  u cost  i in-zone  p packets  c connects  n name    q quit"
)

// live shows the traffic until somebody has seen enough.
func (t *top) live(ctx context.Context, leader *leader, in, out *os.File) error {
	if _, err := t.query(0); err != nil {
		return err
	}
	s, err := openScreen(in, out)
	if err != nil {
		return err
	}
	defer s.close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := make(chan seen, 1)
	asking, again := false, false
	look := func() {
		if again = asking; asking {
			return
		}
		asking = true
		limit, order := t.limit, t.order
		if at := s.place(); limit == 0 {
			limit = at.Height
		}
		q, _ := t.query(limit)
		go func() {
			defer s.giveBack()
			v, err := get[view.Traffic](ctx, leader, "/v1/traffic", q)
			answers <- seen{v, order, err}
		}()
	}
	ticker := time.NewTicker(t.every)
	defer ticker.Stop()
	var last seen
	look()
	for {
		if err := s.draw(t.picture(last, s.place())); err != nil {
			return fmt.Errorf("terminal: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case k, ok := <-s.keys:
			if !ok || k == 'q' || k == 'Q' || k == ctrlC {
				return nil
			}
			if order, ok := sortKeys[k]; ok && order != t.order {
				t.order = order
				look()
			}
		case a := <-answers:
			asking = false
			if a.err != nil {
				a.traffic, a.order = last.traffic, last.order // what was known, until it answers again
			}
			last = a
			if again {
				look()
			}
		case <-ticker.C:
			if !asking {
				look()
			}
		}
	}
}

// picture is what the terminal shows: what this is, the table, and what qualifies it.
func (t *top) picture(s seen, at report.Place) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "zonewise top %s, last %s, by %s", t.by, t.since.text, t.order)
	if !s.traffic.To.IsZero() {
		fmt.Fprintf(&b, ", until %s UTC", s.traffic.To.UTC().Format(time.TimeOnly))
	}
	fmt.Fprintf(&b, "\n%s\n\n", help)
	var below []string
	for _, n := range s.traffic.Notes {
		below = append(below, "note: "+n)
	}
	if s.err != nil {
		below = append(below, "zonewise: "+oneLine(s.err))
	}
	const above = 3
	switch {
	case s.traffic.Schema == "" && s.err == nil:
		b.WriteString("asking the controller …\n")
	case s.traffic.Schema == "":
	case silent(s.traffic):
		q, _ := t.trafficFlags.query()
		below = append(below, oneLine(t.nothing(q)))
	default:
		if at.Height > 0 {
			at.Height = max(at.Height-above-len(below), above)
		}
		_ = report.Traffic(&b, s.traffic, s.order, at) // a buffer takes everything
	}
	for _, l := range below {
		fmt.Fprintln(&b, l)
	}
	return b.Bytes()
}

// orderFlag is the value of --sort.
type orderFlag meter.Order

// String, Set and Type are pflag.Value.
func (o *orderFlag) String() string { return string(*o) }

// Type is what the help shows.
func (o *orderFlag) Type() string { return "order" }

// Set takes an order that there is.
func (o *orderFlag) Set(s string) error {
	if !slices.Contains(meter.Orders(), meter.Order(s)) {
		return fmt.Errorf("must be one of %s", orders())
	}
	*o = orderFlag(s)
	return nil
}

func orders() string {
	var out []string
	for _, o := range meter.Orders() {
		out = append(out, string(o))
	}
	return strings.Join(out, ", ")
}
