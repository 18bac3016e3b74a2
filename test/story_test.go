//go:build story

package test

import (
	"context"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// storyLab is where all stories happen.
const storyLab = "story"

func TestStories(t *testing.T) {
	usePrograms(t)
	bootStoryLab(t)
	// What testscript works in would be left behind whenever -run leaves out a story.
	t.Setenv("GOTMPDIR", t.TempDir())
	testscript.RunT(inTurn{t}, testscript.Params{
		Files: prepared(t, "stories"),
		Setup: openStory,
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

// bootStoryLab starts the lab, and takes it down at the end of the test or at Ctrl-C, which ends
// the whole run. A lab that an earlier run had to leave behind goes first.
func bootStoryLab(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("stories run in a lab, which needs root: use `make test-story`")
	}
	takeDown := func() ([]byte, error) {
		return detached("zonewise", "lab", "down", "--name", storyLab).CombinedOutput()
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
	out, err := detached("zonewise", "lab", "up", "--name", storyLab, "--offline").CombinedOutput()
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
