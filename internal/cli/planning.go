package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/outlook"
	"github.com/zonewise/zonewise/internal/reflect/dump"
	"github.com/zonewise/zonewise/internal/route"
)

// inputFlags are where plans get their facts from: a file, or the cluster.
type inputFlags struct {
	file   string
	access access
}

func addInputFlags(c *cobra.Command) *inputFlags {
	in := &inputFlags{}
	c.Flags().StringVarP(&in.file, "filename", "f", "", "read what kubectl get … -A -o yaml (or json) printed, - for stdin, instead of a cluster")
	in.access = accessFlags(c)
	c.ValidArgsFunction = in.completeServices
	if err := c.RegisterFlagCompletionFunc("namespace", in.access.completeNamespaces); err != nil {
		panic(err) // accessFlags has the flag
	}
	return in
}

// input is what was read, and the namespace that was asked for; empty means all.
type input struct {
	dump.Dump
	namespace string
}

// read gets the facts. Where a file is read nobody's kubeconfig counts; without a namespace all are
// meant.
func (in *inputFlags) read(c *cobra.Command) (input, error) {
	if in.file == "" {
		config, namespace, err := in.access.resolve()
		if err != nil {
			return input{}, err
		}
		d, err := readCluster(c.Context(), config)
		return input{d, namespace}, err
	}
	d, err := readFile(c, in.file)
	return input{d, *in.access.flags.Namespace}, err
}

func readFile(c *cobra.Command, name string) (dump.Dump, error) {
	from, label := c.InOrStdin(), "stdin"
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return dump.Dump{}, err
		}
		defer f.Close()
		from, label = f, name
	}
	d, err := dump.Read(from)
	if err != nil {
		return d, fmt.Errorf("%s: %w", label, err)
	}
	if len(d.Nodes) == 0 {
		return d, fmt.Errorf("%s: no nodes in it; it takes the output of: kubectl get nodes,services,endpointslices,pods -A -o yaml", label)
	}
	return d, nil
}

// notes writes what was odd about the input, the first ones.
func (in input) notes(w io.Writer) {
	const most = 20
	for i, n := range in.Notes {
		if i == most {
			fmt.Fprintf(w, "zonewise: note: and %d more like these\n", len(in.Notes)-most)
			return
		}
		fmt.Fprintf(w, "zonewise: note: %s\n", oneLine(errors.New(n.String())))
	}
}

// torn is how many notes are about the input as a whole: a plan of half a cluster is a finding.
func (in input) torn() int {
	n := 0
	for _, x := range in.Notes {
		if x.Object == "input" {
			n++
		}
	}
	return n
}

// find returns the one Service of a name, or says why there is nothing to plan for it.
func (in input) find(name string) (model.Service, error) {
	namespace := in.namespace
	if namespace == "" {
		namespace = "default"
	}
	want := model.Name{Namespace: namespace, Name: name}
	var elsewhere []string
	for _, s := range in.Services {
		if s.Name == want {
			return s, nil
		}
		if s.Name.Name == name {
			elsewhere = append(elsewhere, s.Namespace)
		}
	}
	if why, ok := in.Skipped[want]; ok {
		return model.Service{}, fmt.Errorf("service %s: %s", want, why)
	}
	if len(elsewhere) > 0 {
		slices.Sort(elsewhere)
		return model.Service{}, fmt.Errorf("service %s: not found; there is one in %s (-n)", want, strings.Join(elsewhere, ", "))
	}
	return model.Service{}, fmt.Errorf("service %s: not found", want)
}

// chosen returns the Services of the namespace, or all.
func (in input) chosen() []model.Service {
	if in.namespace == "" {
		return in.Services
	}
	return slices.DeleteFunc(slices.Clone(in.Services), func(s model.Service) bool { return s.Namespace != in.namespace })
}

// question is what is planned with: as things are, or what if.
type question struct {
	route.WhatIf
	prices model.Prices
	rate   float64 // bytes per second of a Service of which nobody says more
}

// asked tells whether anything is to be otherwise than it is.
func (q question) asked() bool {
	return len(q.Scale) > 0 || len(q.Lose) > 0 || q.MaxOverload != nil
}

// text says it in few words, in the order in which it is done.
func (q question) text() []string {
	var out []string
	for _, z := range slices.Sorted(slices.Values(q.Lose)) {
		out = append(out, z+" lost")
	}
	for _, z := range slices.Sorted(maps.Keys(q.Scale)) {
		out = append(out, fmt.Sprintf("%d pods in %s", q.Scale[z], z))
	}
	if q.MaxOverload != nil {
		out = append(out, fmt.Sprintf("bound %v", 1+*q.MaxOverload))
	}
	return out
}

// planner plans Services under a question. It is safe for concurrent use.
type planner struct {
	question
	outlook *outlook.Outlook
	nodes   []model.Node
	cluster *route.Cluster
	cpu     func(model.Name) int64
	now     time.Time
	slices  map[model.Name][]model.Slice
	routes  map[model.Name]model.ZoneRoute
}

func newPlanner(in input, q question) *planner {
	p := &planner{question: q, nodes: q.Nodes(in.Nodes), now: time.Now(), cpu: cpuRequests(in.Pods),
		slices: map[model.Name][]model.Slice{}, routes: map[model.Name]model.ZoneRoute{}}
	for _, s := range in.Slices {
		p.slices[s.ServiceName()] = append(p.slices[s.ServiceName()], s)
	}
	for _, r := range in.Routes {
		p.routes[r.Name] = r
	}
	settings := outlook.Settings{Namespaces: in.Namespaces, Prices: q.prices, Stability: route.DefaultStability()}
	if q.asked() {
		settings.Stability = route.Stability{} // what if is about where it ends, not about the way
	}
	p.cluster = route.NewCluster(p.nodes, q.prices)
	p.outlook = outlook.New(settings, outlook.Facts{Nodes: p.nodes, CPU: p.cpu, Measured: p.measured, Now: p.now})
	return p
}

// measured is the demand that the controller last measured: it stands in the status of ZoneRoutes.
func (p *planner) measured(svc model.Name, v6 bool) *model.Demand {
	for _, plan := range p.routes[svc].Status.Plans {
		if plan.V6 == v6 && plan.Demand.Source == model.Measured && len(plan.Demand.Shares) > 0 {
			return p.Demand(&plan.Demand)
		}
	}
	return nil
}

func cpuRequests(pods []model.Pod) func(model.Name) int64 {
	of := make(map[model.Name]int64, len(pods))
	for _, p := range pods {
		of[p.Name] = p.MilliCPU
	}
	return func(n model.Name) int64 { return of[n] }
}

// route is the Service's ZoneRoute as the question would have it.
func (p *planner) route(svc model.Name) *model.ZoneRoute {
	zr, exists := p.routes[svc]
	zr.Name = svc
	if zr.Spec.BytesPerSecond == 0 {
		zr.Spec.BytesPerSecond = p.rate
	}
	zr.Spec = p.Spec(zr.Spec)
	if p.asked() {
		zr.Status = model.RouteStatus{}
	}
	if !exists && !p.asked() && p.rate == 0 {
		return nil
	}
	return &zr
}

// plan plans one Service.
func (p *planner) plan(svc model.Service) outlook.Service {
	return p.outlook.Service(svc, p.Slices(svc, p.slices[svc.Name]), p.route(svc.Name))
}

// advise says what would have to change for a wished in-zone share, family by family.
func (p *planner) advise(svc model.Service, of outlook.Service, wish float64) []route.Advice {
	var out []route.Advice
	spec := model.RouteSpec{}
	if zr := p.route(svc.Name); zr != nil {
		spec = zr.Spec
	}
	all := p.Slices(svc, p.slices[svc.Name])
	for _, f := range of.Families {
		out = append(out, route.Advise(route.Input{Service: svc.Name, V6: f.V6, Endpoints: route.Endpoints(all, f.V6), Spec: spec,
			Cluster: p.cluster, CPU: p.cpu, Measured: p.measured(svc.Name, f.V6), Now: p.now}, wish))
	}
	return out
}

// planAll plans many Services on all processors, in the order given.
func (p *planner) planAll(ctx context.Context, services []model.Service) ([]outlook.Service, error) {
	out := make([]outlook.Service, len(services))
	next := make(chan int)
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for i := range next {
				out[i] = p.plan(services[i])
			}
		})
	}
	for i := range services {
		if ctx.Err() != nil {
			break
		}
		next <- i
	}
	close(next)
	workers.Wait()
	return out, ctx.Err()
}
