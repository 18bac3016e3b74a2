//go:build story

package test

import (
	"context"
	"flag"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestStories(t *testing.T) {
	tell(t, "stories", storyLab{"story", []string{"--set", "agent.countBytes=true"}})
}

// TestZoneRoutes tells the same stories to everything that can carry out a plan: our agents by its
// weights, our agents by hints alone, and kube-proxy.
func TestZoneRoutes(t *testing.T) {
	for _, l := range []storyLab{
		{"weights", nil},
		{"hints", []string{"--set", "agent.honour=hints"}},
		{"kube-proxy", []string{"--proxy", "kube-proxy"}},
	} {
		t.Run(l.name, func(t *testing.T) { tell(t, "zoneroutes", l) })
	}
}

// TestDualStack tells of a cluster of both IP families, to our agents and to kube-proxy.
func TestDualStack(t *testing.T) {
	for _, l := range []storyLab{
		{"dual", []string{"--ip-family", "dual"}},
		{"dual-proxy", []string{"--ip-family", "dual", "--proxy", "kube-proxy"}},
	} {
		t.Run(l.name, func(t *testing.T) { tell(t, "dual", l) })
	}
}

// TestDualStackCloud tells of both IP families with addresses from the cloud's API, of several interfaces, to our
// agents and to kube-proxy.
func TestDualStackCloud(t *testing.T) {
	for _, l := range []storyLab{
		{"dual-cloud", nil},
		{"dual-cloud-proxy", []string{"--proxy", "kube-proxy"}},
	} {
		l.up = append(l.up, "--ip-family", "dual", "--cni", "zonewise", "--zones", "2", "--nodes-per-zone", "1")
		t.Run(l.name, func(t *testing.T) { tell(t, "dualcloud", l) })
	}
}

// TestIPv6 tells of a cluster whose pods and Services have IPv6 alone.
func TestIPv6(t *testing.T) {
	tell(t, "ipv6", storyLab{"ipv6", []string{"--ip-family", "ipv6", "--cni", "zonewise", "--zones", "2", "--nodes-per-zone", "1"}})
}

// TestCloud tells of a lab whose pods have addresses from the cloud's API.
func TestCloud(t *testing.T) {
	tell(t, "cloud", storyLab{"cloud", []string{"--cni", "zonewise"}})
}

// TestUpstreamCNI tells of a lab that somebody brings a CNI plugin to: AWS's own, unchanged.
func TestUpstreamCNI(t *testing.T) {
	tell(t, "upstream", storyLab{"upstream", []string{"--cni", "none", "--zones", "2", "--nodes-per-zone", "1"}})
}

// How long the cloud's API is away. What an operator fears: -args -away-for 10m
var awayFor = flag.Duration("away-for", 15*time.Second, "how long the cloud's API is away in stories; from a minute on, what takes minutes is told, too")

// TestCloudSaysNo tells of a cloud that gives nothing: since it has nothing, is away, is asked too often, or does not
// know who asks.
func TestCloudSaysNo(t *testing.T) {
	for _, folder := range []string{"refused", "fragmented"} {
		t.Run(folder, func(t *testing.T) {
			tell(t, folder, storyLab{folder, []string{"-f", filepath.Join(folder, "lab.yaml")}})
		})
	}
}

// TestLimits tells how many pods a node holds: with interfaces full of addresses, with prefixes, and with subnets that are
// for pods alone. Interfaces take more than a minute to go: meanwhile the other labs have their turn.
func TestLimits(t *testing.T) {
	cloud := func(name string, more ...string) storyLab {
		return storyLab{name, slices.Concat([]string{"--cni", "zonewise", "--nodes-per-zone", "1"}, more)}
	}
	first := cloud("limits", "--set", "cni.env.IP_COOLDOWN_PERIOD=5")
	usePrograms(t)
	first.boot(t)
	t.Run("interfaces", func(t *testing.T) { first.tell(t, "limits/interfaces") })
	t.Run("prefixes", func(t *testing.T) {
		tell(t, "limits/prefixes", cloud("prefixes", "--zones", "1", "--set", "cni.env.ENABLE_PREFIX_DELEGATION=true"))
	})
	t.Run("custom", func(t *testing.T) {
		tell(t, "limits/custom", cloud("custom", "--zones", "2", "--set", "cni.env.AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG=true"))
	})
	t.Run("drained", func(t *testing.T) { first.tell(t, "limits/drained") })
}

// storyLab is where the stories of a folder happen.
type storyLab struct {
	name string
	up   []string // more flags for `lab up`
}

// tell boots a lab and runs the stories of a folder in it.
func tell(t *testing.T, folder string, l storyLab) {
	usePrograms(t)
	l.boot(t)
	l.tell(t, folder)
}

// tell runs the stories of a folder in a lab that runs.
func (l storyLab) tell(t *testing.T, folder string) {
	// What testscript works in would be left behind whenever -run leaves out a story.
	t.Setenv("GOTMPDIR", t.TempDir())
	testscript.RunT(inTurn{t}, testscript.Params{
		Files: prepared(t, folder),
		Setup: l.open,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"sh": sh, "eventually": eventually, "spread": spread,
		},
	})
}

// usePrograms puts what `make build` made first on the PATH.
func usePrograms(t *testing.T) {
	bin, err := filepath.Abs("../bin")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(bin, "zonewise")); err != nil {
		t.Fatalf("%v: run `make build` first", err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
}

// boot starts the lab, and takes it down at the end of the test or at Ctrl-C, which ends
// the whole run. A lab that an earlier run had to leave behind goes first.
func (l storyLab) boot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("stories run in a lab, which needs root: use `make test-story`")
	}
	takeDown := func() ([]byte, error) {
		return detached("zonewise", "lab", "down", "--name", l.name).CombinedOutput()
	}
	_, _ = takeDown()
	interrupted, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(interrupted, func() {
		if t.Context().Err() == nil {
			out, _ := takeDown()
			_, _ = os.Stderr.Write(out)
			os.Exit(1)
		}
	})
	t.Cleanup(func() {
		if out, err := takeDown(); err != nil {
			t.Errorf("lab down: %v\n%s", err, out)
		}
		stop()
	})
	begin := time.Now()
	out, err := detached("zonewise", slices.Concat([]string{"lab", "up", "--name", l.name, "--offline"}, l.up)...).CombinedOutput()
	if err != nil {
		t.Fatalf("lab up: %v\n%s", err, out)
	}
	t.Logf("lab up in %.1f s", time.Since(begin).Seconds())
}

// detached is a command that Ctrl-C at the terminal does not reach: it is to finish.
func detached(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// inTurn runs scripts one after the other: they share the lab, and measure.
type inTurn struct{ *testing.T }

func (t inTurn) Run(name string, f func(testscript.T)) {
	t.T.Run(name, func(t *testing.T) { f(inTurn{t}) })
}
func (inTurn) Parallel() {}

// Verbose is false: of a story that passes its steps are enough. One that fails shows what the lines
// of the failed step printed.
func (inTurn) Verbose() bool { return false }
