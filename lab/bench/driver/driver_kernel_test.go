//go:build kernel

package driver

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zonewise/zonewise/internal/kernel/netns"
)

// This program is also its own client and server.
func TestMain(m *testing.M) {
	role := map[string]func() error{
		"driver": func() error { return Main(os.Stdin, os.Stdout) },
		"server": func() error { return Serve(os.Stdin, os.Stdout) },
	}[os.Args[len(os.Args)-1]]
	if role == nil {
		os.Exit(m.Run())
	}
	if err := role(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func start(t *testing.T, ns *netns.NS, role string) *Process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p, err := Start(exec.Command("nsenter", "--net="+ns.Path(), "--", self, role))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// TestTasks has a client do each task once, at a server in a namespace of their own.
func TestTasks(t *testing.T) {
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if out, err := exec.Command("nsenter", "--net="+ns.Path(), "--", "ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	server, client := start(t, ns, "server"), start(t, ns, "driver")
	if _, err := server.Do(Job{Task: Tell}); err != nil { // it listens before it answers
		t.Fatal(err)
	}
	at := func(port uint16) []netip.AddrPort {
		return []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)}
	}
	do := func(j Job) Reply {
		t.Helper()
		r, err := client.Do(j)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	const short = 50 * time.Millisecond
	if r := do(Job{Task: Connect, Targets: append(at(AnswerPort), at(9)...), Count: 200, Seed: 1}); len(r.Samples) != 200 || r.Outcomes[Open] == 0 ||
		r.Outcomes[Refused] == 0 || r.Outcomes[Open]+r.Outcomes[Refused] != 200 {
		t.Errorf("connect: %d samples, %v", len(r.Samples), r.Outcomes)
	}
	if r := do(Job{Task: Connect, Targets: at(AnswerPort), Beside: at(9), Count: 20}); len(r.Samples) != 20 || len(r.Beside) != 20 || r.Outcomes[Open] != 20 || r.Outcomes[Refused] != 20 {
		t.Errorf("connect in turn: %d and %d samples, %v", len(r.Samples), len(r.Beside), r.Outcomes)
	}
	for _, task := range []Task{Rate, Request} {
		if r := do(Job{Task: task, Targets: at(AnswerPort), Workers: 4, Length: short}); r.Done == 0 || r.Outcomes[Open] != int(r.Done) || len(r.Outcomes) != 1 || r.Took < short {
			t.Errorf("%s: %+v", task, r)
		}
	}
	if r := do(Job{Task: Rate, Targets: at(9), Workers: 4, Length: short}); r.Done != 0 || r.Outcomes[Refused] == 0 {
		t.Errorf("rate where nobody listens: %+v", r)
	}
	if r := do(Job{Task: Stream, Targets: at(SinkPort), Workers: 2, Length: short}); r.Done < chunk || r.Took < short {
		t.Errorf("stream: %+v", r)
	}
	sent := do(Job{Task: Blast, Targets: at(BlastPort), Length: short}).Done
	if r, err := server.Do(Job{Task: Tell}); err != nil || r.Done == 0 || r.Done > sent {
		t.Errorf("of %d datagrams %d came, %v", sent, r.Done, err)
	}
	// More clients have come and gone while the server was stopped than it may have files open.
	if err := unix.Prlimit(server.cmd.Process.Pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: atOnce + 64, Max: atOnce + 64}, nil); err != nil {
		t.Fatal(err)
	}
	if err := server.cmd.Process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	r := do(Job{Task: Connect, Targets: at(AnswerPort), Count: 3 * atOnce})
	if err := server.cmd.Process.Signal(unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if r.Outcomes[Open] < 2*atOnce { // a busy machine may lose one
		t.Errorf("while the server was stopped: %v", r.Outcomes)
	}
	if r := do(Job{Task: Request, Targets: at(AnswerPort), Workers: 4, Length: short}); r.Done == 0 || len(r.Outcomes) != 1 {
		t.Errorf("after the server was stopped: %+v", r)
	}
	begin := Now()
	if r := do(Job{Task: Await, Targets: at(AnswerPort), Want: Open, Length: time.Second}); r.At < begin || r.At > Now() || r.Outcomes[Open] != 1 {
		t.Errorf("await: %+v", r)
	}
	if r, err := client.Do(Job{Task: Await, Targets: at(9), Want: Open, Length: short, Pause: time.Millisecond}); err == nil || r.Outcomes[Refused] < 2 || r.Outcomes[Refused] > int(r.Took/time.Millisecond)+2 {
		t.Errorf("await where nobody listens: %+v, %v", r, err)
	}
	for _, task := range []Task{Socket, Clock} {
		if r := do(Job{Task: task, Count: 10}); len(r.Samples) != 10 {
			t.Errorf("%s: %+v", task, r)
		}
	}
	if _, err := client.Do(Job{Task: "nothing"}); err == nil {
		t.Error("a task that there is not")
	}
}
