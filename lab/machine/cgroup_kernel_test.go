//go:build kernel

package machine

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// The test's own program joins a cgroup and becomes a shell there: see TestMain.
const joinVariable = "ZONEWISE_TEST_JOIN"

func TestMain(m *testing.M) {
	if path := os.Getenv(joinVariable); path != "" {
		if err := EnterCgroup(path); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("joined")
		_, _ = os.Stdin.Read(make([]byte, 1))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func joinCgroup(t *testing.T, path string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), joinVariable+"="+path)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	said := make([]byte, 200)
	if n, err := out.Read(said); string(said[:n]) != "joined\n" {
		t.Fatalf("%s, %v", said[:n], err)
	}
	return cmd
}

func cgroupDirs(t *testing.T, path string) []string {
	t.Helper()
	all, err := hierarchies()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, h := range all {
		if _, err := os.Stat(filepath.Join(h.mount, path)); err == nil {
			out = append(out, h.mount)
		}
	}
	return out
}

func TestCgroups(t *testing.T) {
	all, err := hierarchies()
	if err != nil {
		t.Fatal(err)
	}
	path := fmt.Sprintf("zonewise-test-%d", os.Getpid())
	t.Cleanup(func() {
		if err := RemoveCgroup(path, 5*time.Second); err != nil {
			t.Error(err)
		}
	})
	one, two := joinCgroup(t, path+"/a1/system"), joinCgroup(t, path+"/a2")
	if dirs := cgroupDirs(t, path); len(dirs) != len(all) {
		t.Errorf("cgroups in %v, want all of %v", dirs, all)
	}
	want := []int{one.Process.Pid, two.Process.Pid}
	slices.Sort(want)
	if got, err := Processes(path); err != nil || !slices.Equal(got, want) {
		t.Errorf("processes %v, %v, want %v", got, err, want)
	}
	if got, err := Processes(path + "/a1"); err != nil || !slices.Equal(got, []int{one.Process.Pid}) {
		t.Errorf("processes of a1 %v, %v", got, err)
	}
	// Controllers reach what is below a machine, beside its own programs.
	for _, h := range all {
		if h.kind == "cgroup2" {
			have, _ := os.ReadFile(filepath.Join(h.mount, path, "a1/cgroup.controllers"))
			down, _ := os.ReadFile(filepath.Join(h.mount, path, "a1/cgroup.subtree_control"))
			if strings.TrimSpace(string(have)) != strings.TrimSpace(string(down)) {
				t.Errorf("%s: controllers %s, handed down %s", h.mount, have, down)
			}
		}
	}
	if err := RemoveCgroup(path, 5*time.Second); err != nil {
		t.Fatal(err)
	}
	for _, cmd := range []*exec.Cmd{one, two} {
		_ = cmd.Wait()
		if cmd.ProcessState.Success() {
			t.Error("a process of a cgroup that is removed ended by itself")
		}
	}
	if dirs := cgroupDirs(t, path); len(dirs) > 0 {
		t.Errorf("left in %v", dirs)
	}
	if err := RemoveCgroup(path, 5*time.Second); err != nil {
		t.Errorf("of nothing: %v", err)
	}
}
