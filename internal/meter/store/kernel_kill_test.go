//go:build kernel

package store_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/zonewise/zonewise/internal/meter/store"
)

const (
	writerVariable = "ZONEWISE_TEST_STORE"
	kills          = 100
	agentsOfWriter = 3
)

// writerOptions let hours be closed and minutes go while the writer runs.
var writerOptions = store.Options{Minutes: 2 * time.Hour}

// TestKilledAtAnyMoment kills a process that writes, 100 times, and looks each time that what it was told to be
// taken is there once, and beyond that at most the report that was in flight.
func TestKilledAtAnyMoment(t *testing.T) {
	dir := t.TempDir()
	random := rand.New(rand.NewPCG(1, 2))
	var had [agentsOfWriter]uint64 // before this kill
	for i := range kills {
		promised := runWriter(t, dir, time.Duration(random.IntN(60_000))*time.Microsecond)
		s, err := store.Open(dir, writerOptions)
		must(t, err)
		want := totals{}
		for a := range agentsOfWriter {
			has := s.Applied(writerNode(a), 1)
			if least := max(promised[a], had[a]); has < least || has > least+1 {
				t.Fatalf("kill %d: agent %d is applied up to %d, and was promised %d", i, a, has, least)
			}
			had[a] = has
			for sequence := uint64(1); sequence <= has; sequence++ {
				r := writerReport(a, sequence)
				want.add(r.At, r.Flows)
			}
		}
		got, err := scan(s, store.Minute)
		must(t, err)
		recent := writerReport(0, had[0]).At.Add(-110 * time.Minute) // older minutes may be in closed hours
		if diff := cmp.Diff(want.since(recent), got.since(recent)); diff != "" {
			t.Fatalf("kill %d: minutes (-want +got):\n%s", i, diff)
		}
		got, err = scan(s, store.Hour)
		must(t, err)
		if diff := cmp.Diff(want.hours(), got); diff != "" {
			t.Fatalf("kill %d: hours (-want +got):\n%s", i, diff)
		}
		if st := s.Stats(); st.Damaged > 0 || st.Missing > 0 {
			t.Fatalf("kill %d: %+v", i, st)
		}
		must(t, s.Close())
	}
	if had[0] < kills {
		t.Errorf("only %d reports of each agent were written between %d kills", had[0], kills)
	}
	t.Logf("%d reports of each agent survived %d kills", had[0], kills)
}

// runWriter runs TestWriter in a process of its own and kills it a while after its first promise. It gives what
// was promised to each agent.
func runWriter(t *testing.T, dir string, after time.Duration) (promised [agentsOfWriter]uint64) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestWriter$")
	c.Env = append(os.Environ(), writerVariable+"="+dir)
	out, err := c.StdoutPipe()
	must(t, err)
	must(t, c.Start())
	lines := bufio.NewScanner(out)
	killer := time.AfterFunc(time.Minute, func() {})
	for begun := false; lines.Scan(); {
		var a int
		var sequence uint64
		if n, _ := fmt.Sscanf(lines.Text(), "taken %d %d", &a, &sequence); n == 2 {
			promised[a] = sequence
		}
		if !begun {
			begun = true
			killer = time.AfterFunc(after, cancel)
		}
	}
	killer.Stop()
	if err := c.Wait(); err == nil || c.ProcessState.Exited() {
		t.Fatalf("the writer ended by itself: %v", err)
	}
	return promised
}

// TestWriter is the process that is killed: it goes on where the store is, and never ends.
func TestWriter(t *testing.T) {
	dir := os.Getenv(writerVariable)
	if dir == "" {
		return // only TestKilledAtAnyMoment starts it
	}
	s, err := store.Open(dir, store.Unsynced(writerOptions))
	must(t, err)
	fmt.Println("open")
	for {
		var reports []store.Report
		for a := range agentsOfWriter {
			reports = append(reports, writerReport(a, s.Applied(writerNode(a), 1)+1))
		}
		must(t, s.Append(reports))
		for a, r := range reports {
			fmt.Println("taken", a, r.Sequence)
		}
		if reports[0].Sequence%3 == 0 {
			must(t, s.Roll(reports[0].At.Add(2*time.Minute)))
		}
	}
}

func writerNode(a int) string { return "n" + strconv.Itoa(a) }

// writerReport is the same for the same agent and sequence number: four of each minute.
func writerReport(a int, sequence uint64) store.Report {
	r := store.Report{Node: writerNode(a), Epoch: 1, Sequence: sequence, At: start.Add(time.Duration(sequence/4) * time.Minute)}
	for i := range 5 {
		r.Flows = append(r.Flows, flow(a, i, sequence), flow(a, i+5, 1))
	}
	return r
}
