package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/zonewise/zonewise/internal/cli/report"
	"github.com/zonewise/zonewise/internal/controller/view"
	"github.com/zonewise/zonewise/internal/reflect"
)

func flowsCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "flows",
		Short: "Show who talks to whom, or follow it",
		Long: `Show what each client exchanged with each server in the last minute, the Service that was dialled, and
why it crossed zones. With -f it goes on with what comes in, until Ctrl-C.

-o json prints one object a line (NDJSON). -o vpcflow prints VPC flow log lines, version 2, a header first:
flows have neither addresses nor clients' ports, these are "-".

Flows are kept by workload and node; --pod shows those of the pod's workload on its node.
It asks the controller that leads, through the API server (pods/portforward).`,
		Example: "  zonewise flows -n shop\n  zonewise flows -f --zone ap-northeast-2a -o json\n  zonewise flows --pod web-7d9c6 -n shop\n  zonewise flows --since 1h -o vpcflow",
		Args:    exactly(),
	}
	follow := c.Flags().BoolP("follow", "f", false, "go on with what comes in; what was before only with --since")
	pod := c.Flags().String("pod", "", "traffic of this pod's workload on its node: web-7d9c6, or shop/web-7d9c6")
	out := outputFlag(c, "table", "json", "vpcflow")
	f := addTrafficFlags(c, "1m")
	complete(c, "pod", f.completePods)
	c.RunE = func(c *cobra.Command, _ []string) error {
		if *pod != "" && (f.workload != "" || f.node != "") {
			return usagef("--pod: not with --workload or --node, which it stands for")
		}
		if *follow && !c.Flags().Changed("since") {
			f.since.Duration = 0
		}
		leader, err := f.access.leader()
		if err != nil {
			return err
		}
		if *pod != "" {
			if err := f.findPod(c, leader, *pod); err != nil {
				return err
			}
		}
		q, err := f.query()
		if err != nil {
			return err
		}
		if *follow {
			return followFlows(c, leader, q, out.format)
		}
		return f.flows(c, leader, q, out.format)
	}
	return c
}

// findPod makes filters of a pod.
func (f *trafficFlags) findPod(c *cobra.Command, leader *leader, name string) error {
	_, namespace, err := f.access.resolve()
	if err != nil {
		return err
	}
	if ns, own, ok := strings.Cut(name, "/"); ok {
		namespace, name = ns, own
	}
	p, err := leader.client.CoreV1().Pods(namespace).Get(c.Context(), name, metav1.GetOptions{})
	switch {
	case err != nil:
		return fmt.Errorf("pod %s/%s: %w", namespace, name, err)
	case p.Spec.NodeName == "":
		return fmt.Errorf("pod %s/%s: on no node yet", namespace, name)
	}
	known, _ := reflect.Resident(p, "")
	f.workload, f.node = namespace+"/"+known.Workload, known.Node
	fmt.Fprintf(c.ErrOrStderr(), "zonewise: note: pod %s/%s is one of %s on node %s; flows are kept by these: those of its siblings there are among them\n",
		namespace, name, f.workload, f.node)
	return nil
}

// flows shows what was.
func (f *trafficFlags) flows(c *cobra.Command, leader *leader, q url.Values, format string) error {
	ctx, cancel := context.WithTimeout(c.Context(), slow)
	defer cancel()
	body, err := leader.ask(ctx, "/v1/flows", q)
	if err != nil {
		return err
	}
	defer body.Close()
	w := bufio.NewWriter(c.OutOrStdout())
	var table report.FlowTable
	one := table.Add
	if format != "table" {
		if one, err = flowForm(w, format); err != nil {
			return err
		}
	}
	n := 0
	for v, err := range flowsIn(body) {
		if err != nil {
			return fmt.Errorf("%s: answer: %w", leader.name(), err)
		}
		if err := one(v); err != nil {
			return err
		}
		n++
	}
	if n > 0 && format == "table" {
		if err := table.Write(w, report.Place{Width: place(c.OutOrStdout()).Width}); err != nil {
			return err
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if n == 0 {
		return f.nothing(q)
	}
	return nil
}

// flowForm returns what writes one flow after another in a form, and writes what comes before the first.
func flowForm(w io.Writer, format string) (func(view.Flow) error, error) {
	switch format {
	case "json":
		e := json.NewEncoder(w)
		return func(v view.Flow) error {
			v.Schema = view.FlowSchema
			return e.Encode(v)
		}, nil
	case "vpcflow":
		_, err := fmt.Fprintln(w, report.FlowLogHeader)
		return func(v view.Flow) error { return report.FlowLog(w, v) }, err
	}
	f, err := report.Follow(w, place(w))
	return f.Flow, err
}

// flowsIn yields the flows of an answer as they come in, and at last what is wrong with it, if anything.
func flowsIn(body io.Reader) iter.Seq2[view.Flow, error] {
	return func(yield func(view.Flow, error) bool) {
		for d := json.NewDecoder(body); ; {
			var v view.Flow
			err := d.Decode(&v)
			if errors.Is(err, io.EOF) || !yield(v, err) || err != nil {
				return
			}
		}
	}
}

// follower writes what comes in, for as long as somebody wants to see it.
type follower struct {
	*leader
	query      url.Values
	format     string
	out, notes io.Writer
	one        func(view.Flow) error // nil until the controller has answered
}

// followFlows goes on until it is stopped. Where a controller goes away the next one is asked.
func followFlows(c *cobra.Command, leader *leader, q url.Values, format string) error {
	const rest = time.Second // between two tries
	ctx := c.Context()
	q.Set("follow", "true")
	f := &follower{leader: leader, query: q, format: format, out: c.OutOrStdout(), notes: c.ErrOrStderr()}
	told := ""
	for {
		away, err := f.listen(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		case f.one == nil:
			return away
		}
		if text := oneLine(away); text != told {
			fmt.Fprintf(f.notes, "zonewise: note: %s; asking again, what comes meanwhile is not shown\n", text)
			told = text
		}
		q.Set("since", "0s")
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(rest):
		}
	}
}

// listen writes what one controller tells, until it goes away. The error is of what is written to.
func (f *follower) listen(ctx context.Context) (away, err error) {
	body, err := f.ask(ctx, "/v1/flows", f.query)
	if err != nil {
		return err, nil
	}
	defer body.Close()
	if f.one == nil {
		if f.one, err = flowForm(f.out, f.format); err != nil {
			return nil, err
		}
	}
	for v, err := range flowsIn(body) {
		if err != nil {
			return fmt.Errorf("%s: answer: %w", f.name(), err), nil
		}
		if v.Missed > 0 {
			fmt.Fprintf(f.notes, "zonewise: note: %d flows left out: they come faster than they are taken; ask for fewer by a filter\n", v.Missed)
		}
		if err := f.one(v); err != nil {
			return nil, err
		}
	}
	return fmt.Errorf("%s: the answer ended", f.name()), nil
}

func (f *trafficFlags) completePods(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return f.access.names(func(ctx context.Context, of cluster) ([]string, error) {
		_, namespace, err := f.access.resolve()
		if err != nil {
			return nil, err
		}
		all, err := of.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, err
		}
		var out []string
		for _, p := range all.Items {
			out = append(out, p.Name)
		}
		return out, nil
	})
}
