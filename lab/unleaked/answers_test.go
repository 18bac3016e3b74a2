//go:build kernel

package unleaked

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/zonewise/zonewise/internal/vpc"
	"github.com/zonewise/zonewise/internal/vpc/files"
	"github.com/zonewise/zonewise/lab/region/ec2/wire"
)

// An API of a later version says more of everything than we know: that changes nothing.
func TestAnswersOfALaterVersion(t *testing.T) {
	n := newNode(t, "WARM_IP_TARGET=2", "IP_COOLDOWN_PERIOD=0")
	r := newRuntime(n, 1, 0)
	n.gate.speak(func(answer []byte) []byte {
		more := []byte("<item><aNewThing><item><id>eni-1</id></item></aNewThing><anotherOne>true</anotherOne>")
		return bytes.ReplaceAll(answer, []byte("<item>"), more)
	})
	n.start()
	n.ready()
	r.grow("a later version")
	r.shrink("a later version")
	until(t, "all is well", r.sound)
}

// Answers that break off, or leave out what must be there, are not taken for the truth: who has an address keeps it, what is
// free is given, and who waits is told why. When answers are whole again all goes on.
func TestAnswersCutOff(t *testing.T) {
	for name, spoil := range map[string]func(*gate){
		"cut off": func(g *gate) { g.next.Set(wire.Faults{Truncated: true}) },
		"empty sets": func(g *gate) {
			g.speak(func(answer []byte) []byte {
				before, rest, _ := bytes.Cut(answer, []byte("Set>"))
				_, after, found := bytes.Cut(rest, []byte("</networkInterfaceSet>"))
				if !found {
					return answer
				}
				return fmt.Appendf(nil, "%sSet></networkInterfaceSet>%s", before, after)
			})
		},
		"no MAC": func(g *gate) {
			g.speak(func(answer []byte) []byte { return bytes.ReplaceAll(answer, []byte("macAddress>"), []byte("mac>")) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, "WARM_IP_TARGET=2", "IP_COOLDOWN_PERIOD=0")
			r := newRuntime(n, 1, 0)
			r.wait = "2s"
			n.start()
			n.ready()
			until(t, "two free addresses", func() error { return r.free(2) })
			if err := r.start("first"); err != nil {
				t.Fatal(err)
			}
			until(t, "two free addresses", func() error { return r.free(2) })
			until(t, "all is well", r.sound)
			spoil(n.gate)
			n.again(nil) // it has to look
			for _, name := range []string{"second", "third"} {
				if err := r.start(name); err != nil {
					t.Error(err)
				}
			}
			err := r.start("fourth")
			if coded, ok := errors.AsType[*types.Error](err); !ok || coded.Code != types.ErrTryAgainLater || !strings.Contains(coded.Msg, "the cloud's API: away") {
				t.Errorf("a pod for which there is nothing: %v", err)
			}
			for _, p := range r.all() {
				if err := r.reach(p); err != nil {
					t.Error(err)
				}
			}
			n.gate.next.Set(wire.Faults{})
			n.gate.speak(nil)
			r.wait = "20s"
			if err := r.start("fifth"); err != nil {
				t.Error(err)
			}
			until(t, "all is well again", r.sound)
		})
	}
}

// free tells whether so many addresses can be had at once.
func (r *runtime) free(want int) error {
	dir, err := files.Open(r.dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	pool, err := dir.ReadPool()
	if err != nil {
		return err
	}
	leases, err := dir.ReadLeases(func() (vpc.Leases, error) { return vpc.Leases{}, nil })
	if err != nil {
		return err
	}
	if got := pool.Pool().Size() - len(leases.Held); got != want {
		return fmt.Errorf("%d", got)
	}
	return nil
}
