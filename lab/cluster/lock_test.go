package cluster

import (
	"errors"
	"os"
	"testing"

	"github.com/zonewise/zonewise/lab/topology"
)

func take(t *testing.T, c topology.Config) *Claim {
	t.Helper()
	claim, err := Take(c)
	if err != nil {
		t.Fatal(err)
	}
	return claim
}

func release(t *testing.T, c *Claim) {
	t.Helper()
	if err := c.Release(); err != nil {
		t.Fatal(err)
	}
}

func TestClaim(t *testing.T) {
	t.Setenv("ZONEWISE_LAB_HOME", t.TempDir())
	config := topology.Config{Name: "x"}.WithDefaults()
	p := PathsOf("x")
	if _, err := LoadConfig(p); !errors.Is(err, ErrNotFound) || Running(p) || RunnerPID(p) != 0 {
		t.Errorf("before: %v, running %t, process %d", err, Running(p), RunnerPID(p))
	}
	first := take(t, config)
	if !first.Fresh || !Running(p) || RunnerPID(p) != os.Getpid() {
		t.Errorf("claimed: fresh %t, running %t, process %d", first.Fresh, Running(p), RunnerPID(p))
	}
	if _, err := Take(config); !errors.Is(err, ErrBusy) {
		t.Errorf("claimed twice: %v", err)
	}
	if !Running(p) {
		t.Error("who looked at the lock has taken it away")
	}
	release(t, first)
	if Running(p) {
		t.Error("running after its end")
	}
	other := config
	other.InstanceType = "m5.large"
	if _, err := Take(other); !errors.Is(err, ErrDifferent) {
		t.Errorf("another lab of that name: %v", err)
	}
	other = config
	other.Offline = true
	second := take(t, other)
	defer release(t, second)
	if have, err := LoadConfig(p); second.Fresh || err != nil || !have.Offline {
		t.Errorf("resumed: fresh %t, %+v, %v", second.Fresh, have, err)
	}
}

// A lab that was made before lab.yaml had a field is still what its config says.
func TestSameAsAnOlderLab(t *testing.T) {
	have := topology.Config{Name: "x"}.WithDefaults()
	have.IPFamily = ""
	if !Same(have, topology.Config{Name: "x"}) {
		t.Error("another lab")
	}
	if Same(have, topology.Config{Name: "x", IPFamily: topology.IPFamilyDual}) {
		t.Error("the same lab, with another family")
	}
}

// A lock file that was removed with its lab, just before the lock was had, is no lock.
func TestLockOfARemovedLab(t *testing.T) {
	t.Setenv("ZONEWISE_LAB_HOME", t.TempDir())
	p := PathsOf("x")
	if _, err := lock(p); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no such lab: %v", err)
	}
	first := take(t, topology.Config{Name: "x"}.WithDefaults())
	if err := os.RemoveAll(p.Dir); err != nil {
		t.Fatal(err)
	}
	second := take(t, topology.Config{Name: "x"}.WithDefaults())
	if !second.Fresh {
		t.Error("not a new lab")
	}
	release(t, first)
	release(t, second)
}

func TestCgroupByHome(t *testing.T) {
	t.Setenv("ZONEWISE_LAB_HOME", "")
	if got := PathsOf("x").NodeCgroup("a1"); got != "zonewise-x/a1" {
		t.Errorf("cgroup %s", got)
	}
	t.Setenv("ZONEWISE_LAB_HOME", "/one")
	one := PathsOf("x").Cgroup()
	t.Setenv("ZONEWISE_LAB_HOME", "/two")
	if two := PathsOf("x").Cgroup(); one == two || one == "zonewise-x" {
		t.Errorf("labs of different homes share cgroups: %s, %s", one, two)
	}
}
