package pods

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"sync"
	"time"

	"github.com/zonewise/zonewise/internal/kernel/netns"
)

// Pod is a sandbox, and what the plugin has given it.
type Pod struct {
	Name    string
	Took    time.Duration // from the first call of the plugin until it had an address
	Tries   int
	Address netip.Addr
	Refused string // what the last call that failed has said

	ns        *netns.NS
	container string // as the runtime names it, anew at each try
}

// Retry is how long kubelet waits before it tries again to start a pod whose plugin has failed: at least, and at most.
type Retry struct{ Least, Most time.Duration }

// Kubelet is what kubelet does: its backOffPeriod, and up to a half more.
var Kubelet = Retry{10 * time.Second, 15 * time.Second}

func (r Retry) pause(random *rand.Rand) time.Duration {
	return r.Least + time.Duration(random.Int64N(int64(r.Most-r.Least)+1))
}

// Sandboxes makes so many pods without addresses.
func Sandboxes(prefix string, count int) ([]*Pod, error) {
	var out []*Pod
	for i := range count {
		ns, err := netns.New()
		if err != nil {
			return nil, errors.Join(err, Remove(out))
		}
		out = append(out, &Pod{Name: fmt.Sprintf("%s-%d", prefix, i), ns: ns})
	}
	return out, nil
}

// Remove closes the pods' sandboxes.
func Remove(pods []*Pod) error {
	var errs []error
	for _, p := range pods {
		errs = append(errs, p.ns.Close())
	}
	return errors.Join(errs...)
}

// call runs the plugin; the thread is in the node's namespaces.
func (g *Giver) call(ctx context.Context, verb string, p *Pod) ([]byte, error) {
	cmd := exec.CommandContext(ctx, g.plugin)
	cmd.Dir = "/"
	cmd.Stdin = bytes.NewReader(g.conf)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "CNI_COMMAND=" + verb, "CNI_PATH=/opt/cni/bin", "CNI_IFNAME=eth0"}
	if p != nil {
		cmd.Env = append(cmd.Env, "CNI_CONTAINERID="+p.container, "CNI_NETNS="+p.ns.Path(),
			"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME="+p.Name+";K8S_POD_INFRA_CONTAINER_ID="+p.container+";K8S_POD_UID="+p.Name)
	}
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s%s", verb, err, bytes.TrimSpace(out.Bytes()), bytes.TrimSpace(said.Bytes()))
	}
	return out.Bytes(), nil
}

// Version times the shortest call that there is: it starts the plugin, and little else.
func (g *Giver) Version(ctx context.Context) (took time.Duration, err error) {
	err = g.node.In(func() error {
		begin := time.Now()
		_, err := g.call(ctx, "VERSION", nil)
		took = time.Since(begin)
		return err
	})
	return took, err
}

// StartAll calls the plugin for all pods at once, and for those that it refuses again as kubelet does, until each has an
// address of its own that the cloud delivers to the node.
func (g *Giver) StartAll(ctx context.Context, pods []*Pod, retry Retry, random *rand.Rand) error {
	var all, ready sync.WaitGroup
	gun := make(chan struct{})
	errs := make([]error, len(pods))
	seeds := make([]uint64, len(pods))
	for i := range pods {
		seeds[i] = random.Uint64()
	}
	ready.Add(len(pods))
	for i, p := range pods {
		all.Go(func() {
			errs[i] = g.node.In(func() error {
				ready.Done()
				<-gun
				return g.start(ctx, p, retry, rand.New(rand.NewPCG(seeds[i], 1)))
			})
		})
	}
	ready.Wait()
	close(gun)
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return g.node.distinct(pods)
}

func (g *Giver) start(ctx context.Context, p *Pod, retry Retry, random *rand.Rand) error {
	begin := time.Now()
	for {
		p.Tries++
		p.container = fmt.Sprintf("%s-%d-%x", p.Name, p.Tries, random.Uint64())
		answer, err := g.call(ctx, "ADD", p)
		if err == nil {
			p.Took = time.Since(begin)
			p.Address, err = addressOf(answer)
			return err
		}
		p.Refused = err.Error()
		if _, err := g.call(ctx, "DEL", p); err != nil { // so does containerd
			return err
		}
		select {
		case <-time.After(retry.pause(random)):
		case <-ctx.Done():
			return fmt.Errorf("pod %s: no address: %w: %s", p.Name, ctx.Err(), p.Refused)
		}
	}
}

func addressOf(answer []byte) (netip.Addr, error) {
	var result struct {
		IPs []struct {
			Address netip.Prefix `json:"address"`
		} `json:"ips"`
	}
	if err := json.Unmarshal(answer, &result); err != nil || len(result.IPs) != 1 {
		return netip.Addr{}, fmt.Errorf("not one address in %s: %w", answer, err)
	}
	return result.IPs[0].Address.Addr(), nil
}

// distinct tells whether every pod has an address of its own, and one that the cloud delivers to the node.
func (n *Node) distinct(pods []*Pod) error {
	seen := map[netip.Addr]string{}
	for _, p := range pods {
		if other, twice := seen[p.Address]; twice {
			return fmt.Errorf("%s is of pod %s and of pod %s", p.Address, other, p.Name)
		}
		if !n.owns(p.Address) {
			return fmt.Errorf("%s of pod %s: the cloud does not deliver it to the node", p.Address, p.Name)
		}
		seen[p.Address] = p.Name
	}
	return nil
}

// StopAll takes the addresses of pods back, one after the other, and their sandboxes away.
func (g *Giver) StopAll(ctx context.Context, pods []*Pod) error {
	err := g.node.In(func() error {
		for _, p := range pods {
			if _, err := g.call(ctx, "DEL", p); err != nil {
				return err
			}
		}
		return nil
	})
	return errors.Join(err, Remove(pods))
}
