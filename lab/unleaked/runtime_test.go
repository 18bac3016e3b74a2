//go:build kernel

package unleaked

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/zonewise/zonewise/internal/kernel/netns"
	"github.com/zonewise/zonewise/lab/region"
)

// runtime starts and stops pods as kubelet and a container runtime do, and remembers who has which address.
type runtime struct {
	*node
	// deadly is in how many of a hundred calls the plugin is killed in the middle.
	deadly int
	wait   string // how long a pod waits for an address

	mu      sync.Mutex
	random  *rand.Rand
	pods    map[string]*pod     // that run, by container
	has     map[netip.Addr]*pod // what they were told
	left    map[string]bool     // containers that were never taken down: GC is to find what they left
	count   map[string]int      // of what happened
	longest map[string]time.Duration
}

// pod is one that runs.
type pod struct {
	name, container string
	ns              *netns.NS
	address         netip.Addr
}

func newRuntime(n *node, seed uint64, deadly int) *runtime {
	return &runtime{node: n, deadly: deadly, wait: "20s", random: rand.New(rand.NewPCG(seed, 0)), pods: map[string]*pod{}, has: map[netip.Addr]*pod{},
		left: map[string]bool{}, count: map[string]int{}, longest: map[string]time.Duration{}}
}

// draw is a number below n. All chance comes from one seed; in which order it is asked for is the machine's.
func (r *runtime) draw(n int) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.random.IntN(n)
}

func (r *runtime) note(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count[what]++
}

// errKilled is what becomes of a call whose plugin was killed: nobody knows how much of it was done.
var errKilled = errors.New("killed")

// invoke runs the plugin for a verb. A mortal one may be killed at any time of it.
func (r *runtime) invoke(verb, name, container, sandbox string, mortal bool, valid []types.GCAttachment) (*types100.Result, error) {
	config, err := json.Marshal(map[string]any{"cniVersion": "1.1.0", "name": "zonewise", "type": "zonewise-cni", "stateDir": r.dir,
		"pool": map[string]any{"from": "cloud", "wait": r.wait}, "cni.dev/valid-attachments": valid})
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	c := exec.Command(filepath.Join(r.plugins, "zonewise-cni"))
	c.Env = []string{"CNI_COMMAND=" + verb, "CNI_CONTAINERID=" + container, "CNI_IFNAME=eth0", "CNI_PATH=" + r.plugins, "CNI_NETNS=" + sandbox,
		"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=" + name}
	c.Stdin, c.Stdout, c.Stderr = bytes.NewReader(config), &out, os.Stderr
	begin := time.Now()
	if err := r.ns.Do(c.Start); err != nil {
		return nil, err
	}
	var death *time.Timer
	if mortal && r.draw(100) < r.deadly {
		// Most of a call is the start of the program; the latest it has come to its end.
		death = time.AfterFunc(time.Duration(r.draw(80))*time.Millisecond, func() { _ = c.Process.Kill() })
	}
	err = c.Wait()
	if death != nil && !death.Stop() && err != nil {
		r.note(verb + " killed")
		return nil, errKilled
	}
	r.mu.Lock()
	r.longest[verb] = max(r.longest[verb], time.Since(begin))
	r.count[verb]++
	r.mu.Unlock()
	if err != nil {
		said := &types.Error{}
		if json.Unmarshal(out.Bytes(), said) == nil {
			err = said
		}
		return nil, fmt.Errorf("%s %s: %w", verb, name, err)
	}
	if out.Len() == 0 {
		return nil, nil
	}
	result, err := types100.NewResult(out.Bytes())
	if err != nil {
		return nil, err
	}
	return types100.NewResultFromResult(result)
}

// start starts a pod. As a runtime does, it takes a sandbox down whose network did not come, and tries with a new one.
func (r *runtime) start(name string) error {
	for try := 0; ; try++ {
		p := &pod{name: name, container: fmt.Sprintf("%s-%d", name, try)}
		var err error
		if p.ns, err = netns.New(); err != nil {
			return err
		}
		result, err := r.invoke("ADD", name, p.container, p.ns.Path(), true, nil)
		if err == nil {
			if len(result.IPs) != 1 {
				return fmt.Errorf("%s: has %v", name, result.IPs)
			}
			p.address, _ = netip.AddrFromSlice(result.IPs[0].Address.IP.To4())
			return r.runs(p)
		}
		if errors.Is(err, errKilled) && r.draw(10) == 0 { // the runtime died with it, and knows nothing of it
			r.mu.Lock()
			r.left[p.container] = true
			r.mu.Unlock()
			_ = p.ns.Close()
			continue
		}
		if failed := r.takeDown(p); failed != nil || !errors.Is(err, errKilled) || try == 20 {
			return errors.Join(err, failed)
		}
	}
}

// runs notes that a pod has its address, and that it is the only one.
func (r *runtime) runs(p *pod) error {
	r.mu.Lock()
	other := r.has[p.address]
	r.pods[p.container], r.has[p.address] = p, p
	r.mu.Unlock()
	if other != nil {
		return fmt.Errorf("%s has %s, which %s has", p.container, p.address, other.container)
	}
	return r.reach(p)
}

// stop takes a pod down.
func (r *runtime) stop(p *pod) error {
	r.mu.Lock()
	delete(r.pods, p.container)
	delete(r.has, p.address)
	r.mu.Unlock()
	return r.takeDown(p)
}

// takeDown calls DEL until it comes to its end, now and then with the pod's namespace gone already.
func (r *runtime) takeDown(p *pod) error {
	path := p.ns.Path()
	if r.draw(4) == 0 {
		_ = p.ns.Close()
	} else {
		defer p.ns.Close()
	}
	for range 20 {
		if _, err := r.invoke("DEL", p.name, p.container, path, true, nil); !errors.Is(err, errKilled) {
			return err
		}
	}
	return fmt.Errorf("%s: DEL: %w twenty times", p.name, errKilled)
}

// collect is what a runtime does now and then: it says what there is, and the plugin takes back all else. Nobody may
// be starting meanwhile.
func (r *runtime) collect() error {
	var valid []types.GCAttachment
	for _, p := range r.all() {
		valid = append(valid, types.GCAttachment{ContainerID: p.container, IfName: "eth0"})
	}
	for {
		if _, err := r.invoke("GC", "", "", "", true, valid); !errors.Is(err, errKilled) {
			clear(r.left)
			return err
		}
	}
}

// all are the pods that run.
func (r *runtime) all() []*pod {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []*pod
	for _, p := range r.pods {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b *pod) int { return cmp.Compare(a.container, b.container) })
	return out
}

// reach sends a pod an echo request from the VPC, and waits for the reply.
func (r *runtime) reach(p *pod) error {
	err := region.In(r.fabric.Thread.NS(), func() error {
		c, err := net.Dial("ip4:icmp", p.address.String())
		if err != nil {
			return err
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
			return err
		}
		// Type 8, code 0, checksum of the rest, identifier 1, sequence 1.
		if _, err := c.Write([]byte{8, 0, 0xf7, 0xfd, 0, 1, 0, 1}); err != nil {
			return err
		}
		b := make([]byte, 64)
		n, err := c.Read(b)
		if err == nil && (n < 28 || b[20] != 0) { // after the IP header
			err = fmt.Errorf("reply %x", b[:n])
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("%s at %s is not reached from the VPC: %w", p.name, p.address, err)
	}
	return nil
}

// summary is what happened, for people.
func (r *runtime) summary() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var b strings.Builder
	for _, what := range slices.Sorted(maps.Keys(r.count)) {
		fmt.Fprintf(&b, "%s %d, ", what, r.count[what])
	}
	fmt.Fprintf(&b, "longest ADD %v, longest DEL %v, daemons %d, calls of EC2 %s",
		r.longest["ADD"].Round(time.Millisecond), r.longest["DEL"].Round(time.Millisecond), r.starts, r.gate.asked())
	return b.String()
}
