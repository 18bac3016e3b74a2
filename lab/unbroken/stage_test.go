//go:build kernel

package unbroken

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	apiruntime "k8s.io/apimachinery/pkg/runtime"

	"github.com/zonewise/zonewise/internal/kernel/netns"
	"github.com/zonewise/zonewise/lab/rig"
	"github.com/zonewise/zonewise/lab/rig/apiserver"
	"github.com/zonewise/zonewise/lab/rig/peer"
)

var full = flag.Bool("full", false, "the long form: 1,000 flows by TCP and by UDP, 500 new connections a second, everything ten times, the agent stopped for a minute")

// bin is where make build puts programs; those of another version are in a folder below it.
var bin = flag.String("bin", "../../bin", "folder of the programs")

func TestMain(m *testing.M) {
	if asChild() {
		return
	}
	os.Exit(m.Run())
}

// soon is how long anything may take that is not measured.
const soon = 30 * time.Second

// until waits for something, and fails with what it was when that takes too long. It returns how long it took.
func until(t *testing.T, what string, limit time.Duration, reached func() error) time.Duration {
	t.Helper()
	begin := time.Now()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := reached()
		if err == nil {
			return time.Since(begin)
		}
		if time.Since(begin) > limit {
			t.Fatalf("%s: not within %v: %v", what, limit, err)
		}
		<-tick.C
	}
}

func pause(d time.Duration) { <-time.After(d) }

// stage is a node with endpoints, an API server, and whatever programs run on it.
type stage struct {
	*testing.T
	world *rig.World
	dir   string
	bin   string

	address string // of the API server, on the node's loopback
	url     string
	api     *apiserver.Server
	served  chan error
}

func newStage(t *testing.T) *stage {
	t.Helper()
	w, err := rig.New(rig.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	s := &stage{T: t, world: w, dir: t.TempDir(), address: "127.0.0.1:0"}
	if s.bin, err = filepath.Abs(*bin); err != nil {
		t.Fatal(err)
	}
	steady, changing := serversOf(w)
	for _, server := range append(steady, changing...) {
		for _, a := range server.addrs {
			ns := w.Outside
			for _, p := range w.Pods {
				if a == p.V4.String() || a == p.V6.String() {
					ns = p.NS
				}
			}
			var end func() error
			err := ns.Do(func() (err error) {
				end, err = serve(net.JoinHostPort(a, strconv.Itoa(port)))
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = end() })
		}
	}
	s.listen(cluster(w)...)
	t.Cleanup(s.hangUp)
	return s
}

// listen starts an API server that knows the objects, where the last one was.
func (s *stage) listen(objects ...apiruntime.Object) {
	s.Helper()
	snapshot, err := apiserver.Prepare(objects...)
	if err != nil {
		s.Fatal(err)
	}
	var l net.Listener
	err = s.world.Node.Do(func() (err error) {
		l, err = net.Listen("tcp4", s.address)
		return err
	})
	if err != nil {
		s.Fatal(err)
	}
	s.address = l.Addr().String()
	s.url = "http://" + s.address
	s.api, s.served = apiserver.New(snapshot, apiserver.Options{}), make(chan error, 1)
	go func() { s.served <- s.api.Serve(l) }()
}

// hangUp ends the API server.
func (s *stage) hangUp() {
	if s.api == nil {
		return
	}
	if err := errors.Join(s.api.Close(), <-s.served); err != nil {
		s.Error(err)
	}
	s.api = nil
}

func (s *stage) set(objects ...apiruntime.Object) {
	s.Helper()
	for _, o := range objects {
		if _, err := s.api.Set(o); err != nil {
			s.Fatal(err)
		}
	}
}

// program is one that runs on the node.
type program struct {
	*stage
	kind  peer.Kind
	log   string
	cmd   *exec.Cmd
	ended chan error
}

// start starts a program. Dir is below the programs' folder: "", or that of another version.
func (s *stage) start(kind peer.Kind, dir string) *program {
	s.Helper()
	return s.run(kind, s.command(kind, dir))
}

func (s *stage) command(kind peer.Kind, dir string) []string {
	s.Helper()
	args, err := peer.Command(s.world, kind, s.url, peer.Options{Bin: filepath.Join(s.bin, dir), Dir: s.dir, Node: nodeName})
	if err != nil {
		s.Fatal(err)
	}
	return args
}

func (s *stage) run(kind peer.Kind, args []string) *program {
	s.Helper()
	log, err := os.CreateTemp(s.dir, string(kind)+"-*.log")
	if err != nil {
		s.Fatal(err)
	}
	defer log.Close()
	p := &program{stage: s, kind: kind, log: log.Name(), cmd: s.world.Command(s.world.Node, args[0], args[1:]...), ended: make(chan error, 1)}
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := p.cmd.Start(); err != nil {
		s.Fatal(err)
	}
	go func() { p.ended <- p.cmd.Wait() }()
	s.Cleanup(p.kill)
	return p
}

// signal sends one to the program, and end waits for its end.
func (p *program) signal(sig syscall.Signal) {
	p.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.Fatalf("%s: %v\n%s", p.kind, err, p.said())
	}
}

func (p *program) end() error {
	if p.cmd == nil {
		return nil
	}
	p.cmd = nil
	return <-p.ended
}

// note logs what is done, and when.
func (s *stage) note(format string, args ...any) {
	s.Helper()
	s.Logf("%s %s", time.Now().Format("15:04:05.000"), fmt.Sprintf(format, args...))
}

// kill ends it as the kernel does when there is no memory.
func (p *program) kill() {
	if p.cmd != nil {
		_ = p.cmd.Process.Kill()
		_ = p.end()
	}
}

// stop ends it as a kubelet does: what does not end when it is asked to is killed.
func (p *program) stop() {
	p.Helper()
	p.signal(syscall.SIGTERM)
	select {
	case err := <-p.ended:
		p.cmd = nil
		if err != nil && !strings.Contains(err.Error(), "terminated") {
			p.Errorf("%s: %v\n%s", p.kind, err, p.said())
		}
	case <-time.After(time.Second):
		p.kill()
	}
}

// said is the end of the program's log.
func (p *program) said() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-3000):])
}

// ready waits until an agent has programmed everything.
func (p *program) ready() time.Duration {
	p.Helper()
	return until(p.T, "agent ready", soon, func() error {
		_, err := p.get("http://127.0.0.1:9470/healthz")
		if err != nil {
			return fmt.Errorf("%w\n%s", err, p.said())
		}
		return nil
	})
}

// get asks at an address of the node.
func (s *stage) get(url string) (string, error) {
	dial := func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
		failed := s.world.Node.Do(func() error {
			conn, err = (&net.Dialer{}).DialContext(ctx, network, addr)
			return nil
		})
		return conn, errors.Join(err, failed)
	}
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
	res, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", res.Status, body)
	}
	return string(body), err
}

// repairs is what the agent counted of a path.
func (p *program) repairs(path string) int {
	p.Helper()
	text, err := p.get("http://127.0.0.1:9470/metrics")
	if err != nil {
		p.Fatal(err)
	}
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, fmt.Sprintf("zonewise_repairs_total{path=%q} ", path)); ok {
			n, err := strconv.Atoi(strings.TrimSpace(rest))
			if err != nil {
				p.Fatal(err)
			}
			return n
		}
	}
	p.Fatalf("no count of repairs of path %s", path)
	return 0
}

// onNode runs a command in the node's network.
func (s *stage) onNode(name string, args ...string) string {
	s.Helper()
	out, err := s.world.Command(s.world.Node, name, args...).CombinedOutput()
	if err != nil {
		s.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
	return string(out)
}

// answers tells whether a new connection works from a pod whose sockets nobody leads: this process
// is in no cgroup of the world's.
func (s *stage) answers(from *netns.NS, protocol string, to netip.AddrPort) error {
	return from.Do(func() error {
		_, _, err := ask(protocol, to, time.Second)
		return err
	})
}

// crowd is clients at work in several places.
type crowd struct {
	*stage
	clients []running
}

type running struct {
	place string
	cmd   *exec.Cmd
	in    io.Closer
	out   *json.Decoder
}

// begin starts clients in two pods, on the node and outside, which have so many flows between them
// and make new connections at the rate, and waits until all flows are open.
func (s *stage) begin(tcp, udp, rate int) *crowd {
	s.Helper()
	places := []struct {
		name    string
		ns      *netns.NS
		outside bool
	}{{"pod 0", s.world.Pods[0].NS, false}, {"pod 1", s.world.Pods[1].NS, false}, {"node", s.world.Node, false}, {"outside", s.world.Outside, true}}
	c := &crowd{stage: s}
	for i, p := range places {
		j := job{Rate: rate / len(places)}
		at := virtual
		if p.outside {
			at = open
		}
		for k := range tcp / len(places) {
			j.TCP = append(j.TCP, at([]int{steadily, changes}[k/2%2], k%2 == 1))
		}
		for k := range udp / len(places) {
			j.UDP = append(j.UDP, at(steadily, k/2%2 == 1)) // to an endpoint that goes, UDP is cut: that is as it should be
		}
		for _, v6 := range []bool{false, true} {
			j.New = append(j.New, at(steadily, v6), at(changes, v6))
			j.NewUDP = append(j.NewUDP, at(steadily, v6))
		}
		self, err := os.Executable()
		if err != nil {
			s.Fatal(err)
		}
		cmd := s.world.Command(p.ns, self)
		if p.outside {
			cmd = exec.Command(cmd.Path, cmd.Args[1:]...) // in no cgroup of the node's
		}
		cmd.Env, cmd.Stderr = append(os.Environ(), trafficVariable+"=1"), os.Stderr
		in, err := cmd.StdinPipe()
		if err != nil {
			s.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			s.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			s.Fatal(err)
		}
		s.Cleanup(func() {
			if c.clients[i].cmd != nil {
				_, _ = in.Close(), cmd.Wait()
			}
		})
		c.clients = append(c.clients, running{p.name, cmd, in, json.NewDecoder(out)})
		if err := json.NewEncoder(in).Encode(j); err != nil {
			s.Fatal(err)
		}
	}
	for _, r := range c.clients {
		var opened string
		if err := r.out.Decode(&opened); err != nil {
			s.Fatalf("%s: flows: %v", r.place, err)
		}
	}
	return c
}

// finish ends the clients, and tells what became of their connections.
func (c *crowd) finish() report {
	c.Helper()
	for _, r := range c.clients {
		if err := r.in.Close(); err != nil {
			c.Error(err)
		}
	}
	var sum report
	for i, r := range c.clients {
		var one report
		err := r.out.Decode(&one)
		c.clients[i].cmd = nil
		if err := errors.Join(err, r.cmd.Wait()); err != nil {
			c.Fatalf("%s: %v", r.place, err)
		}
		for k := range one.Broken {
			one.Broken[k] = r.place + ": " + one.Broken[k]
		}
		for k := range one.Slow {
			one.Slow[k] = r.place + ": " + one.Slow[k]
		}
		for k := range one.Failed {
			one.Failed[k] = r.place + ": " + one.Failed[k]
		}
		sum.add(one)
	}
	return sum
}

// judge fails the test for whatever went wrong, and logs the counts. UDP can be let move and end.
func (s *stage) judge(r report, udpMay bool) {
	s.Helper()
	if !udpMay && r.Moved+r.Ended > 0 {
		s.Errorf("of UDP, %d flows moved and %d sockets were ended", r.Moved, r.Ended)
	}
	s.Logf("%d flows, %d echoes: %d broken, of UDP %d moved, %d ended; slowest echo %v; %d new connections, %d of them by UDP: %d failed, %d sent again, slowest %v",
		r.Flows, r.Echoes, len(r.Broken), r.Moved, r.Ended, r.SlowestEcho.Round(time.Millisecond), r.Connects, r.Datagrams, len(r.Failed), r.Again, r.SlowestConnect.Round(time.Millisecond))
	const shown = 8
	if n := len(r.Slow); n > 0 {
		s.Logf("%d slow echoes, of which:\n%s", n, strings.Join(r.Slow[:min(n, shown)], "\n"))
	}
	if n := len(r.Broken); n > 0 {
		s.Errorf("%d broken flows, of which:\n%s", n, strings.Join(r.Broken[:min(n, shown)], "\n"))
	}
	if n := len(r.Failed); n > 0 {
		s.Errorf("%d failed connects, of which:\n%s", n, strings.Join(r.Failed[:min(n, shown)], "\n"))
	}
	if r.Flows == 0 || r.Echoes < r.Flows || r.Connects == 0 {
		s.Error("that was no traffic")
	}
}
