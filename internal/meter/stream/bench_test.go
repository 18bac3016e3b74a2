//go:build linux

package stream_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/meter/store"
	"github.com/zonewise/zonewise/internal/meter/store/storetest"
	"github.com/zonewise/zonewise/internal/meter/stream"
	"github.com/zonewise/zonewise/internal/model"
)

const (
	simulatedNodes = 5000
	simulatedFlows = 200 // a minute, of each node

	agentsVariable = "ZONEWISE_TEST_AGENTS" // address and directory of certificates of TestSimulatedAgents
)

// BenchmarkAgents is a controller to which 5,000 agents, in another process, each report 200 flows over a connection of its own
// with mutual TLS. One iteration is a minute's reports, all at once. What it tells is of the controller alone.
func BenchmarkAgents(b *testing.B) {
	a := newAuthority(b)
	a.sign(b, "controller", []string{"controller.zonewise"})
	a.sign(b, "agents", nil)
	s, err := store.Open(b.TempDir(), store.Options{})
	must(b, err)
	b.Cleanup(func() { must(b, s.Close()) })
	server, address := serve(b, a.files("controller"), s, stream.ServerOptions{Authorize: func(context.Context, string) error { return nil }})

	agents := exec.Command(os.Args[0], "-test.run=^TestSimulatedAgents$")
	agents.Env = append(os.Environ(), agentsVariable+"="+address+" "+a.dir)
	agents.Stderr = os.Stderr
	in, err := agents.StdinPipe()
	must(b, err)
	out, err := agents.StdoutPipe()
	must(b, err)
	before := mostMemory(b)
	must(b, agents.Start())
	b.Cleanup(func() { must(b, in.Close()); must(b, agents.Wait()) })
	said := bufio.NewScanner(out)
	minute := func() {
		if _, err := fmt.Fprintln(in, "report"); err != nil || !said.Scan() || said.Text() != "confirmed" {
			b.Fatalf("agents say %q, %v", said.Text(), err)
		}
	}
	begin := cpu(b)
	minute() // connects, too
	connected := cpu(b) - begin
	begin = cpu(b)
	for b.Loop() {
		minute()
	}
	b.ReportMetric((cpu(b)-begin).Seconds()/float64(b.N), "cpu-s/minute")
	b.ReportMetric(connected.Seconds(), "cpu-s-to-connect")
	b.ReportMetric(mostMemory(b)-before, "MB")
	if st := server.Stats(); st.Streams != simulatedNodes || st.Batches != uint64(simulatedNodes*(b.N+1)) {
		b.Errorf("server's stats are %+v", st)
	}
	var got, want model.FlowCount
	must(b, s.Scan(time.Now().Add(-time.Hour), time.Now().Add(time.Hour), store.Minute, func(_ time.Time, flows []model.Flow) error {
		for _, f := range flows {
			got.Add(f.FlowCount)
		}
		return nil
	}))
	world := storetest.New(simulatedNodes, simulatedFlows, 1)
	for range b.N + 1 {
		for i := range simulatedNodes {
			for _, f := range world.Minute(i) {
				want.Add(f.FlowCount)
			}
		}
	}
	if got != want {
		b.Errorf("the store has %+v, want %+v", got, want)
	}
}

// TestSimulatedAgents is the process of the agents: for each line that it reads all report, and when all is confirmed it
// says so.
func TestSimulatedAgents(t *testing.T) {
	address, dir, ok := strings.Cut(os.Getenv(agentsVariable), " ")
	if !ok {
		return // only BenchmarkAgents starts it
	}
	world := storetest.New(simulatedNodes, simulatedFlows, 1)
	files := (&authority{dir: dir}).files("agents")
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	clients := make([]*stream.Client, simulatedNodes)
	for i := range clients {
		c, err := stream.NewClient(dial(t, files, address), stream.ClientOptions{Node: world.Node(i), Notice: func(err error) {
			if ctx.Err() == nil {
				fmt.Fprintln(os.Stderr, err)
			}
		}})
		must(t, err)
		wait.Go(func() { c.Run(ctx) })
		clients[i] = c
	}
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		for i, c := range clients {
			var flows []meter.Observed
			for _, f := range world.Minute(i) {
				flows = append(flows, meter.Observed{Flow: f, Observer: meter.AtClient})
			}
			must(t, c.Put(time.Now(), flows, nil))
		}
		for _, c := range clients {
			until(t, func() bool { st := c.Stats(); return st.Waiting+st.Flying == 0 })
		}
		fmt.Println("confirmed")
	}
	cancel()
	wait.Wait()
}

// cpu is the processor time that this process took.
func cpu(tb testing.TB) time.Duration {
	var u syscall.Rusage
	must(tb, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// mostMemory is the most memory that this process has had, in MB.
func mostMemory(tb testing.TB) float64 {
	data, err := os.ReadFile("/proc/self/status")
	must(tb, err)
	for line := range strings.Lines(string(data)) {
		var kilobytes float64
		if n, _ := fmt.Sscanf(line, "VmHWM: %f kB", &kilobytes); n == 1 {
			return kilobytes / 1000
		}
	}
	tb.Fatal("/proc/self/status has no VmHWM")
	return 0
}
