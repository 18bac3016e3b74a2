//go:build kernel

package unleaked

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/zonewise/zonewise/internal/vpc"
	"github.com/zonewise/zonewise/internal/vpc/files"
)

var (
	pods = flag.Int("pods", 200, "how many pods start and stop while plugin and daemon are killed")
	full = flag.Bool("full", false, "kill the daemon also before each call, and at calls that change nothing")
	seed = flag.Uint64("seed", 0, "of the chance that they do it by; 0: a new one")
)

// most is how many pods run at a time: nearly all that the instance has addresses for.
const most, workers = 13, 3

// Plugin and daemon are killed at any time while pods start and stop. No address is given twice or lost while that
// goes on, and none is when all is quiet.
func TestKilledAtAnyTime(t *testing.T) {
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	t.Logf("-seed %d", *seed)
	n := newNode(t, "WARM_IP_TARGET=1", "MINIMUM_IP_TARGET=2", "IP_COOLDOWN_PERIOD=1")
	r := newRuntime(n, *seed, 25)
	n.start()
	n.ready()
	const round = 50
	for done := 0; done < *pods && !t.Failed(); done += round {
		r.round(fmt.Sprint("r", done/round), min(round, *pods-done))
		if err := r.collect(); err != nil {
			t.Fatal(err)
		}
		until(t, fmt.Sprintf("all is well after %d pods", done+round), r.sound)
		for _, p := range r.all() {
			if err := r.reach(p); err != nil {
				t.Error(err)
			}
		}
	}
	for _, p := range r.all() {
		if err := r.stop(p); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "all is well without pods", r.sound)
	t.Log(r.summary())
	if err := n.cloud.Terminate(n.instance); err != nil {
		t.Fatal(err)
	}
	if left := n.cloud.Records().Interfaces; len(left) > 0 {
		t.Errorf("left of a terminated instance: %v", left)
	}
}

// round starts and stops so many pods, with the daemon killed again and again. When it returns a daemon runs, and
// some of the pods.
func (r *runtime) round(name string, pods int) {
	r.Helper()
	var wg sync.WaitGroup
	jobs := make(chan string)
	for range workers {
		wg.Go(func() {
			for job := range jobs {
				if err := r.change(job); err != nil {
					r.Error(err)
				}
			}
		})
	}
	over, killer := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(killer)
		for {
			select {
			case <-time.After(time.Duration(r.draw(1500)) * time.Millisecond):
				r.kill()
				<-time.After(time.Duration(r.draw(200)) * time.Millisecond)
				r.node.start()
			case <-over:
				return
			}
		}
	}()
	for i := range pods {
		jobs <- fmt.Sprint(name, "-", i)
	}
	close(jobs)
	wg.Wait()
	close(over)
	<-killer
}

// change starts a pod, after others were stopped where there are as many as may be.
func (r *runtime) change(name string) error {
	for {
		all := r.all()
		if len(all) <= most-workers && r.draw(3) > 0 || len(all) == 0 {
			return r.start(name)
		}
		if err := r.stopOne(all[r.draw(len(all))]); err != nil {
			return err
		}
	}
}

// stopOne stops a pod unless another worker is about to.
func (r *runtime) stopOne(p *pod) error {
	r.mu.Lock()
	_, runs := r.pods[p.container]
	delete(r.pods, p.container)
	r.mu.Unlock()
	if !runs {
		return nil
	}
	return r.stop(p)
}

// Killed after any call of the cloud's API was carried out, and before its answer came: the next daemon finds what was made
// and is nobody's.
func TestKilledAtEveryCall(t *testing.T) {
	n := newNode(t, "WARM_IP_TARGET=2", "IP_COOLDOWN_PERIOD=0")
	r := newRuntime(n, 1, 0)
	n.start()
	n.ready()
	calls := []string{"AssignPrivateIpAddresses", "CreateNetworkInterface", "AttachNetworkInterface", "ModifyNetworkInterfaceAttribute",
		"DetachNetworkInterface", "DeleteNetworkInterface", "UnassignPrivateIpAddresses"}
	when := []bool{true}
	if *full {
		calls, when = append(calls, "DescribeNetworkInterfaces", "DescribeSubnets"), []bool{true, false}
	}
	for _, action := range calls {
		for _, done := range when {
			what := fmt.Sprintf("killed at %s, done %t", action, done)
			begin := time.Now()
			killed := n.gate.at(action, done, func() { n.again(nil) })
			n.again(r.age) // it looks first
			r.grow(what)
			r.shrink(what)
			select {
			case <-killed:
			case <-time.After(soon):
				t.Fatalf("%s: never asked: %s", what, n.gate.asked())
			}
			until(t, what, r.sound)
			if got := len(n.cloud.Records().Attached(n.instance)); got != 1 {
				t.Errorf("%s: %d interfaces", what, got)
			}
			t.Logf("%s: %v", what, time.Since(begin).Round(time.Millisecond))
		}
	}
	t.Log(r.summary())
}

// grow starts six pods: one more than the first interface has addresses for.
func (r *runtime) grow(what string) {
	r.Helper()
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			if err := r.start(fmt.Sprint("p", i)); err != nil {
				r.Errorf("%s: %v", what, err)
			}
		})
	}
	wg.Wait()
	until(r.T, what+": six pods", r.sound)
	for _, p := range r.all() {
		if err := r.reach(p); err != nil {
			r.Errorf("%s: %v", what, err)
		}
	}
}

// shrink stops them, and lets the daemon believe that this was long ago.
func (r *runtime) shrink(what string) {
	r.Helper()
	for _, p := range r.all() {
		if err := r.stop(p); err != nil {
			r.Errorf("%s: %v", what, err)
		}
	}
	until(r.T, what+": too much", r.calm)
	r.again(r.age)
	until(r.T, what+": given back", func() error {
		if n := len(r.cloud.Records().Attached(r.instance)); n > 1 {
			return fmt.Errorf("%d interfaces", n)
		}
		return nil
	})
}

// calm tells whether the daemon has found that there is too much.
func (r *runtime) calm() error {
	return r.pool(func(pool *vpc.Supply) error {
		if pool.Memory.Calm.IsZero() {
			return errors.New("the daemon has not found that there is too much")
		}
		return nil
	})
}

// age makes what the daemon remembers older: that there is too much, and what it has given back. No daemon may run.
func (r *runtime) age() {
	if err := r.pool(func(pool *vpc.Supply) error {
		if !pool.Memory.Calm.IsZero() {
			pool.Memory.Calm = pool.Memory.Calm.Add(-behind)
		}
		for i := range pool.Memory.Leaving {
			pool.Memory.Leaving[i].Since = pool.Memory.Leaving[i].Since.Add(-behind)
		}
		return nil
	}); err != nil {
		r.Error(err)
	}
}

// pool looks at what the daemon has written, and may change it.
func (r *runtime) pool(change func(*vpc.Supply) error) error {
	dir, err := files.Open(r.dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	pool, err := dir.ReadPool()
	if err == nil {
		err = change(&pool)
	}
	if err != nil {
		return err
	}
	return dir.WritePool(pool)
}
