package addresses

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/zonewise/zonewise/internal/agent/view"
	"github.com/zonewise/zonewise/internal/golden"
	"github.com/zonewise/zonewise/internal/vpc"
	"github.com/zonewise/zonewise/internal/vpc/files"
)

// inBubble is a test with a clock of its own.
func inBubble(t *testing.T, get map[string]string, do func(w *world), subnets ...string) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, dir, get, subnets...)
		w.cloud.Attach = 2 * time.Second
		do(w)
		w.daemon.timer.Stop()
	})
}

// The documented numbers: 0 pods on one interface, 1 to 5 on two, 6 to 15 on three.
func TestInterfacesAppearWithPods(t *testing.T) {
	inBubble(t, nil, func(w *world) {
		w.pass()
		w.expect("1 interfaces, 5 addresses", w.have())
		w.must(1, 1)
		w.settleFor(20 * time.Second)
		w.expect("2 interfaces, 10 addresses", w.have())
		w.must(2, 5)
		w.settleFor(20 * time.Second)
		w.expect("2 interfaces, 10 addresses", w.have())
		w.must(6, 6)
		w.settleFor(20 * time.Second)
		w.expect("3 interfaces, 15 addresses", w.have())
		w.must(7, 15)
		w.settleFor(20 * time.Second)
		w.expect("3 interfaces, 15 addresses", w.have())
		if _, err := w.add(16); !errors.Is(err, vpc.ErrExhausted) || !strings.Contains(err.Error(), "3 interfaces with 5 addresses each") {
			w.Errorf("the 16th with an address: %v", err)
		}
		w.sound()
		rules, _ := w.config.Host.Rules()
		text := fmt.Sprint(rules)
		for _, want := range []string{"1024: from all fwmark 0x80/0x80 lookup main", "32765: from 10.0.1.", "1536: from 10.0.1."} {
			if !strings.Contains(text, want) {
				w.Errorf("no rule %s in %s", want, text)
			}
		}
	})
}

// A pod that finds nothing leaves a ticket; one pass gets it what it needs.
func TestPodThatWaitsGetsAnAddress(t *testing.T) {
	inBubble(t, map[string]string{"WARM_IP_TARGET": "1"}, func(w *world) {
		w.pass()
		w.must(1, 1)
		if _, err := w.add(2); !errors.Is(err, vpc.ErrWait) {
			w.Fatalf("the second of one address: %v", err)
		}
		w.pass()
		if _, err := w.add(2); err != nil {
			w.Errorf("after a pass: %v", err)
		}
		w.sound()
	})
}

// The last interface that the instance has room for is worth waiting for, though nothing more can be had then.
func TestLastInterfaceIsWaitedFor(t *testing.T) {
	inBubble(t, nil, func(w *world) {
		w.pass()
		w.must(1, 5)
		w.settleFor(10 * time.Second)
		w.must(6, 10)
		if _, err := w.add(11); !errors.Is(err, vpc.ErrWait) {
			w.Errorf("while an interface is being attached: %v", err)
		}
		w.settleFor(3 * time.Second)
		w.must(11, 15)
	})
}

// Addresses that were released a moment ago are not what pods wait for while the cloud has others, on this interface or on
// another: those that come wait for an attachment at most, and not for the cooldown.
func TestNobodyWaitsForWhatCools(t *testing.T) {
	inBubble(t, map[string]string{"WARM_IP_TARGET": "1"}, func(w *world) {
		w.pass()
		w.must(1, 4)
		w.settleFor(10 * time.Second)
		w.expect("1 interfaces, 5 addresses", w.have())
		for i := range 4 {
			w.remove(i + 1)
		}
		for i := 5; i <= 9; i++ {
			if _, err := w.add(i); i > 5 && !errors.Is(err, vpc.ErrWait) {
				w.Errorf("pod %d, with one address free and four that cool: %v", i, err)
			}
		}
		w.settleFor(w.cloud.Attach + time.Second)
		w.must(5, 9)
		w.sound()
	})
}

// Pods that come and go change what the next one waits for, and nothing on the node but their own: its rules and NAT are
// looked after in their own time.
func TestPodsDoNotRemakeTheNetwork(t *testing.T) {
	inBubble(t, nil, func(w *world) {
		w.daemon.node.store.Replace([]any{nodeObject(12, false)}, "2") // of which so many have addresses, says the pool
		w.daemon.node.changed()
		w.pass()
		applied := 0
		w.machine.Fail = func(op string) error {
			if op == "loosen" {
				applied++
			}
			return nil
		}
		for i := 1; i <= 4; i++ {
			w.must(i, i)
			w.pass()
		}
		// The first pod has an interface made, which is a change; that it appears is the other.
		if applied > 2 {
			w.Errorf("applied %d times for 4 pods", applied)
		}
		w.settleFor(applyEvery + time.Second)
		if applied < 2 {
			w.Errorf("not applied within %s", applyEvery)
		}
	})
}

// While the cloud is away those who have addresses keep them, those that are free are given, and the error says why
// there are no more. After it, all is as if nothing had been.
func TestCloudAwayForTenMinutes(t *testing.T) {
	inBubble(t, nil, func(w *world) {
		w.pass()
		w.must(1, 3)
		w.settleFor(20 * time.Second)
		w.cloud.away = errors.New("no answer in time")
		before := w.have()
		w.settleFor(3 * time.Minute)
		w.must(4, 10)
		_, err := w.add(11)
		if !errors.Is(err, vpc.ErrWait) {
			w.Fatalf("with an empty pool: %v", err)
		}
		w.pass()
		if _, err = w.add(11); !errors.Is(err, vpc.ErrWait) || !strings.Contains(err.Error(), "the cloud's API: away") ||
			!strings.Contains(err.Error(), "see whether the node reaches the EC2 API") {
			w.Errorf("it does not say why: %v", err)
		}
		asked := w.cloud.asked
		w.settleFor(7 * time.Minute)
		w.expect(before, w.have())
		if n := w.cloud.asked - asked; n > 7*60/5 {
			w.Errorf("asked %d times in seven minutes", n)
		}
		if v, failure := w.daemon.status.get(); v == nil || !strings.Contains(failure, "no answer in time") {
			w.Errorf("status: %v, %q", v, failure)
		}
		w.cloud.away = nil
		if _, err = w.add(11); !errors.Is(err, vpc.ErrWait) {
			w.Fatalf("the kubelet tries again: %v", err)
		}
		w.settleFor(8 * time.Second) // of which it takes two until the interface is attached
		w.expect("3 interfaces, 15 addresses", w.have())
		w.must(11, 15)
		if _, failure := w.daemon.status.get(); failure != "" {
			w.Errorf("status: still %q", failure)
		}
		w.sound()
	})
}

// A daemon that starts while the cloud is away goes on with what the one before has written.
func TestRestartWithoutCloud(t *testing.T) {
	inBubble(t, nil, func(w *world) {
		w.pass()
		w.must(1, 2)
		w.settleFor(20 * time.Second)
		w.cloud.away = errors.New("no route to host")
		w.start()
		w.settleFor(time.Minute)
		w.must(3, 9)
		w.sound()
		w.cloud.away = nil
		w.settleFor(3 * time.Minute)
		w.expect("3 interfaces, 15 addresses", w.have())
		w.sound()
	})
}

// While nobody says which instance this is, nothing can be decided; pods that wait are told so, and others get what is free.
func TestRestartWithoutMetadata(t *testing.T) {
	inBubble(t, map[string]string{"WARM_IP_TARGET": "1"}, func(w *world) {
		w.pass()
		w.must(1, 1)
		w.pass()
		open := w.config.Open
		w.config.Open = func(context.Context, Called) (Cloud, error) {
			return nil, errors.New("metadata service: identity: no answer in time")
		}
		w.start()
		pass := func() {
			w.Helper()
			if err := w.daemon.pass(w.ctx); err == nil || !strings.Contains(err.Error(), "metadata service") {
				w.Errorf("pass: %v", err)
			}
		}
		pass()
		if _, err := w.add(2); err != nil {
			w.Errorf("of what is free: %v", err)
		}
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p3", UID: "u"}}
		if _, err := w.client.CoreV1().Pods("default").Create(w.ctx, pod, metav1.CreateOptions{}); err != nil {
			w.Fatalf("%v", err)
		}
		if _, err := w.add(3); !errors.Is(err, vpc.ErrWait) {
			w.Fatalf("with an empty pool: %v", err)
		}
		<-time.After(patient)
		pass()
		if err := w.daemon.events.pass(w.ctx); err != nil {
			w.Fatalf("%v", err)
		}
		_, err := w.add(3)
		list, failed := w.client.CoreV1().Events("default").List(w.ctx, metav1.ListOptions{})
		if failed != nil || len(list.Items) != 1 {
			w.Fatalf("%d events: %v", len(list.Items), failed)
		}
		const want = "metadata service: identity: no answer in time"
		if text := list.Items[0].Message; !strings.Contains(text, want) || !strings.Contains(err.Error(), want) {
			w.Errorf("it does not say why: %q, %v", text, err)
		}
		w.config.Open = open
		w.start()
		w.pass()
		w.must(3, 3)
		w.sound()
	})
}

// Without anything from before, a daemon that cannot ask says so, and writes no pool: the plugin says that it waits.
func TestFirstStartWithoutCloud(t *testing.T) {
	inBubble(t, nil, func(w *world) {
		w.cloud.away = errors.New("no route to host")
		if err := w.daemon.pass(w.ctx); err == nil || !strings.Contains(err.Error(), "no route to host") {
			w.Errorf("got %v", err)
		}
		if _, err := os.Stat(filepath.Join(w.config.Dir, files.Pool)); err == nil {
			w.Errorf("it wrote a pool of nothing")
		}
		w.cloud.away = nil
		<-time.After(5 * time.Second)
		w.pass()
		w.must(1, 5)
	})
}

func TestSpoiltFiles(t *testing.T) {
	for _, content := range []string{"", `{"schema":"zonewise.pool/v1","interf`, `{"schema":"zonewise.pool/v9"}`} {
		inBubble(t, nil, func(w *world) {
			w.pass()
			w.must(1, 2)
			if err := os.WriteFile(filepath.Join(w.config.Dir, files.Pool), []byte(content), 0o600); err != nil {
				w.Fatalf("%v", err)
			}
			w.start()
			w.pass()
			w.must(3, 5)
			w.sound()
		})
	}
	// While the daemon runs it writes the pool anew, without any other reason.
	for _, spoil := range []func(string) error{os.Remove, func(path string) error { return os.WriteFile(path, []byte("{"), 0o600) }} {
		inBubble(t, nil, func(w *world) {
			w.pass()
			w.must(1, 2)
			w.settleFor(20 * time.Second)
			if err := spoil(filepath.Join(w.config.Dir, files.Pool)); err != nil {
				w.Fatalf("%v", err)
			}
			w.settleFor(time.Second)
			w.must(3, 5)
		})
	}
	inBubble(t, nil, func(w *world) {
		w.pass()
		if err := os.WriteFile(filepath.Join(w.config.Dir, files.Leases), []byte(`{"schema":"zonewise.leases/v9"}`), 0o600); err != nil {
			w.Fatalf("%v", err)
		}
		if err := w.daemon.pass(w.ctx); !errors.Is(err, files.ErrNewer) {
			w.Errorf("leases of a newer version: %v", err)
		}
	})
}

// The pool of another instance, on a disk that was copied, is not this one's.
func TestPoolOfAnotherInstance(t *testing.T) {
	inBubble(t, nil, func(w *world) {
		w.pass()
		w.cloud.self.ID = "i-2"
		w.cloud.away = errors.New("away")
		w.start()
		if err := w.daemon.pass(w.ctx); err == nil {
			w.Errorf("it gave addresses of another instance")
		}
	})
}

// Somebody deletes an interface by hand: it is seen soon, told, and made anew.
func TestInterfaceDeletedByHand(t *testing.T) {
	inBubble(t, nil, func(w *world) {
		w.pass()
		w.must(1, 5)
		w.settleFor(20 * time.Second)
		w.must(6, 6)
		w.settleFor(20 * time.Second)
		w.expect("3 interfaces, 15 addresses", w.have())
		asked := w.cloud.asked
		w.cloud.Remove(w.cloud.Interfaces()[1].ID)
		w.cloud.appear()
		<-time.After(lookFailed)
		w.pass() // sees that the device is gone
		w.pass() // and asks
		if w.cloud.asked == asked {
			w.Errorf("the cloud was not asked although a device is gone")
		}
		v, _ := w.daemon.status.get()
		if text := strings.Join(v.Warnings, "; "); !strings.Contains(text, "default/p6") {
			w.Errorf("no warning of the pod that lost its address: %q", text)
		}
		w.settleFor(time.Minute)
		w.expect("2 interfaces, 10 addresses", w.have()) // as the others need
	})
}

// Somebody takes an address from a pod by hand: nothing changes in the node, and it is told within seconds. What the
// cloud and its metadata do not agree about is asked once.
func TestAddressUnassignedByHand(t *testing.T) {
	inBubble(t, nil, func(w *world) {
		w.pass()
		w.must(1, 2)
		w.settleFor(20 * time.Second)
		asked := w.cloud.asked
		w.settleFor(time.Minute)
		if n := w.cloud.asked - asked; n > 1 {
			w.Errorf("asked %d times in a minute although nothing is missing", n)
		}
		w.cloud.Fake.Do(vpc.Action{Verb: vpc.UnassignAddresses, Interface: w.cloud.Interfaces()[0].ID, Addresses: w.cloud.Interfaces()[0].Addresses[:1]})
		w.settleFor(lookFailed + time.Second)
		v, _ := w.daemon.status.get()
		if text := strings.Join(v.Warnings, "; "); !strings.Contains(text, "default/p1") {
			w.Errorf("no warning of the pod that lost its address: %q", text)
		}
		asked = w.cloud.asked
		w.cloud.odd = []string{"10.0.1.99"}
		w.settleFor(20 * time.Second)
		if n := w.cloud.asked - asked; n != 1 {
			w.Errorf("asked %d times because of the same", n)
		}
	})
}

// What somebody takes off the node's network is put back, without any other reason to look.
func TestNetworkIsRepaired(t *testing.T) {
	inBubble(t, nil, func(w *world) {
		w.pass()
		w.must(1, 5)
		w.settleFor(applyEvery + time.Second)
		before, _ := w.config.Host.Rules()
		if len(before) == 0 {
			w.Fatalf("no rules")
		}
		for _, r := range before {
			if err := w.config.Host.DeleteRule(r); err != nil {
				w.Fatalf("%v", err)
			}
		}
		w.settleFor(applyEvery + time.Second)
		after, _ := w.config.Host.Rules()
		w.expect(fmt.Sprint(before), fmt.Sprint(after))
	})
}

// Who has given up waiting is told nothing.
func TestNoEventForWhoGaveUp(t *testing.T) {
	inBubble(t, nil, func(w *world) {
		w.pass()
		w.must(1, 5)
		w.cloud.Fail = func(vpc.Action) vpc.Failure { return vpc.SubnetFull }
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p6", UID: "u"}}
		if _, err := w.client.CoreV1().Pods("default").Create(w.ctx, pod, metav1.CreateOptions{}); err != nil {
			w.Fatalf("%v", err)
		}
		w.update(func(_ *files.Dir, l vpc.Leases) vpc.Leases {
			now := time.Now()
			return vpc.Wait(l, keyOf(6), vpc.Owner{Namespace: "default", Pod: "p6"}, now, now.Add(time.Second))
		})
		w.settleFor(10 * time.Second)
		if err := w.daemon.events.pass(w.ctx); err != nil {
			w.Fatalf("%v", err)
		}
		if list, err := w.client.CoreV1().Events("default").List(w.ctx, metav1.ListOptions{}); err != nil || len(list.Items) > 0 {
			w.Errorf("%d events: %v", len(list.Items), err)
		}
	})
}

// A node that takes no pods keeps nothing warm, unless it is told to.
func TestCordonedNode(t *testing.T) {
	for manage, want := range map[string]string{"": "1 interfaces, 5 addresses", "true": "2 interfaces, 10 addresses"} {
		inBubble(t, map[string]string{"AWS_MANAGE_ENIS_NON_SCHEDULABLE": manage}, func(w *world) {
			w.pass()
			w.daemon.node.store.Replace([]any{nodeObject(17, true)}, "2")
			w.daemon.node.changed()
			w.must(1, 1)
			w.settleFor(time.Minute)
			w.expect(want, w.have())
		})
	}
}

// Kubelet takes more pods than there can be addresses for: that is told, with the number.
func TestMaxPodsMismatch(t *testing.T) {
	inBubble(t, nil, func(w *world) {
		w.daemon.node.store.Replace([]any{nodeObject(110, false)}, "2")
		w.daemon.node.changed()
		w.pass()
		v, _ := w.daemon.status.get()
		if text := strings.Join(v.Warnings, "; "); !strings.Contains(text, "kubelet takes 110 pods, but a t3.medium has addresses for 17") {
			w.Errorf("got %q", text)
		}
	})
}

func TestSubnets(t *testing.T) {
	for _, c := range []struct {
		tags map[string]string // of the second subnet
		home string            // value of the tag of the node's own
		env  map[string]string
		want string
	}{
		{nil, "", nil, "subnet-1"},
		{map[string]string{tagSubnet: "1"}, "", nil, "subnet-1 subnet-2"},
		{map[string]string{tagSubnet: "1"}, "0", nil, "subnet-2"},
		{map[string]string{tagSubnet: "1"}, "", map[string]string{"ENABLE_SUBNET_DISCOVERY": "false"}, "subnet-1"},
		{map[string]string{tagSubnet: "1", tagCluster + "other": "shared"}, "", map[string]string{"CLUSTER_NAME": "ours"}, "subnet-1"},
		{map[string]string{tagSubnet: "1", tagCluster + "other": "shared", tagCluster + "ours": ""}, "", map[string]string{"CLUSTER_NAME": "ours"}, "subnet-1 subnet-2"},
	} {
		inBubble(t, c.env, func(w *world) {
			w.cloud.tags = map[string]map[string]string{"subnet-1": {tagSubnet: c.home}, "subnet-2": c.tags}
			w.pass()
			var got []string
			for _, s := range w.daemon.subnets {
				got = append(got, s.ID)
			}
			w.expect(c.want, strings.Join(got, " "))
		}, "10.0.1.0/24", "10.0.2.0/24")
	}
}

func TestCustomNetworking(t *testing.T) {
	env := map[string]string{"AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG": "true", "ENI_CONFIG_LABEL_DEF": "topology.kubernetes.io/zone"}
	inBubble(t, env, func(w *world) {
		asked, answer := "", ""
		w.config.Get = func(_ context.Context, path string) ([]byte, error) {
			asked = path
			return []byte(answer), nil
		}
		w.start()
		// The ENIConfig is looked up as soon as the Node says which.
		w.daemon.node.last = nil
		w.pass()
		w.expect("", asked)
		w.daemon.node.changed()
		w.pass()
		w.expect(configPath+"ap-northeast-2a", asked)
		says := func(want string) {
			w.Helper()
			w.daemon.look = time.Time{}
			w.pass()
			v, _ := w.daemon.status.get()
			if text := strings.Join(v.Warnings, "; "); !strings.Contains(text, want) {
				w.Errorf("got %q, want %q", text, want)
			}
		}
		answer = `{"spec":{"subnet":"net-2"}}`
		says(`spec.subnet: "net-2" is not the id of a subnet`)
		w.expect(configPath+"ap-northeast-2a", asked)
		answer = `{"spec":{"subnet":"subnet-2","securityGroups":["group"]}}`
		says(`spec.securityGroups: "group" is not the id`)
		answer = `{"spec":{"subnet":"subnet-9"}}`
		says("subnet subnet-9: not found")
		w.expect("1 interfaces, 0 addresses", w.have())
		answer = `{"spec":{"subnet":"subnet-2","securityGroups":["sg-2"]}}`
		w.daemon.look = time.Time{}
		w.settleFor(10 * time.Second)
		made := w.cloud.Interfaces()[1]
		if made.SubnetID != "subnet-2" || w.cloud.Calls[0].SecurityGroups[0] != "sg-2" {
			w.Errorf("made %+v by %+v", made, w.cloud.Calls[0])
		}
		w.must(1, 5)
		w.settleFor(10 * time.Second)
		w.must(6, 10)
		if _, err := w.add(11); err == nil {
			w.Errorf("the 11th with an address: of which interface?")
		}
	}, "10.0.1.0/24", "100.64.0.0/24")
}

// Who shares the subnet takes two addresses an hour: after a while it is known when there will be none.
func TestSubnetRunsDry(t *testing.T) {
	inBubble(t, nil, func(w *world) {
		next := netip.MustParseAddr("10.0.1.100")
		for minute := range 180 {
			if minute%30 == 0 {
				w.cloud.Take(next)
				next = next.Next()
			}
			<-time.After(time.Minute)
			w.pass()
			v, _ := w.daemon.status.get()
			if minute < 30 && !v.Subnets[0].Empty.IsZero() {
				w.Fatalf("a forecast after %d minutes", minute)
			}
		}
		v, _ := w.daemon.status.get()
		s := v.Subnets[0]
		left := time.Until(s.Empty)
		if want := time.Duration(s.Free) * time.Hour / 2; s.Free != 239 || left < want*9/10 || left > want*11/10 {
			w.Errorf("%+v: empty in %s, want %s", s, left, want)
		}
	})
}

// What the cloud does not let go is not asked for again all the time.
func TestTidyIsRefused(t *testing.T) {
	inBubble(t, nil, func(w *world) {
		w.pass()
		w.cloud.stuck, w.cloud.tidied = errors.New("ModifyNetworkInterfaceAttribute: UnauthorizedOperation"), 0
		w.settleFor(3 * time.Minute)
		if w.cloud.tidied > 4 {
			w.Errorf("%d times in three minutes", w.cloud.tidied)
		}
		w.cloud.stuck, w.cloud.tidied = nil, 0
		w.settleFor(2 * time.Minute)
		if w.cloud.tidied < 20 {
			w.Errorf("%d times in two minutes", w.cloud.tidied)
		}
	})
}

// What comes by itself is no warning.
func TestEventOfWhatComes(t *testing.T) {
	for coming, want := range map[bool]string{
		true:  "Normal No free address yet: waits for an interface that is being attached.",
		false: "Warning No free address: the subnet is full. Mend: another one. The pod starts by itself then.",
	} {
		next := vpc.Next{Waits: "an interface that is being attached", Coming: coming, Limit: "the subnet is full", Mend: "another one"}
		e := event(&corev1.Pod{}, "a1", next, time.Now())
		if got := e.Type + " " + e.Message; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// A pod that waits has an event that says for what, once.
func TestEventOnWaitingPod(t *testing.T) {
	inBubble(t, nil, func(w *world) {
		w.pass()
		w.must(1, 5)
		w.cloud.Fail = func(vpc.Action) vpc.Failure { return vpc.SubnetFull }
		w.settleFor(5 * time.Second)
		for i := range 2 {
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprint("p", 6+i), UID: "u"}}
			if _, err := w.client.CoreV1().Pods("default").Create(w.ctx, pod, metav1.CreateOptions{}); err != nil {
				w.Fatalf("%v", err)
			}
			if _, err := w.add(6 + i); !errors.Is(err, vpc.ErrWait) {
				w.Fatalf("pod %d: %v", 6+i, err)
			}
			w.settleFor(6 * time.Second)
			for range 2 {
				if err := w.daemon.events.pass(w.ctx); err != nil {
					w.Fatalf("%v", err)
				}
			}
		}
		list, err := w.client.CoreV1().Events("default").List(w.ctx, metav1.ListOptions{})
		if err != nil || len(list.Items) != 2 {
			w.Fatalf("%d events: %v", len(list.Items), err)
		}
		e := list.Items[0]
		const want = "No free address: subnet subnet-1 (10.0.1.0/24 in ap-northeast-2a) has 245 free addresses and gave none when it was asked for 1. " +
			"Mend: give pods another subnet (tag one of the zone with kubernetes.io/role/cni=1, or custom networking), or keep fewer addresses warm (WARM_IP_TARGET). The pod starts by itself then."
		w.expect(want, e.Message)
	})
}

// At any point killed, at any point failing: no address is given twice, none that a pod has is taken away, and in the
// end there are as many as there would have been.
func TestAnyOrderOfEvents(t *testing.T) {
	for seed := range uint64(40) {
		random := rand.New(rand.NewPCG(seed, 0))
		events := make([]int, 40)
		for i := range events {
			events[i] = random.IntN(100)
		}
		if problem := story(t.TempDir(), events); problem != "" {
			t.Fatal(problem)
		}
	}
}

// recorder is a tester for a bubble inside of a rapid test.
type recorder struct{ problem string }

func (r *recorder) Helper()                           {}
func (r *recorder) Errorf(format string, args ...any) { r.problem = fmt.Sprintf(format, args...) }
func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	panic(r)
}

func story(dir string, events []int) (problem string) {
	r := &recorder{}
	defer func() {
		if x := recover(); x != nil && x != any(r) {
			panic(x)
		}
		problem = r.problem
	}()
	w := newWorld(r, dir, nil)
	defer w.daemon.timer.Stop()
	w.pass()
	for i, e := range events {
		switch {
		case e < 40:
			_, _ = w.add(e % 16)
		case e < 60:
			w.remove(e % 16)
		case e < 70: // killed after it has asked the cloud, and before it has written what it got
			if err := w.daemon.open(w.ctx); err != nil {
				w.Fatalf("%v", err)
			}
			w.daemon.observe(w.ctx)
			if decision, err := w.daemon.settle(); err == nil && decision.Action.Verb != vpc.None {
				_, _ = w.cloud.Do(w.ctx, decision.Action)
			}
			w.start()
		case e < 75: // done, and the answer lost
			lost := 0
			w.cloud.Lose = func(vpc.Action) bool { lost++; return lost == 1 }
			w.daemon.look, w.daemon.memory.Retry = time.Time{}, time.Time{}
			w.pass()
			w.cloud.Lose = nil
		case e < 80:
			w.cloud.Fail = func(vpc.Action) vpc.Failure { return vpc.Throttled }
			w.pass()
			w.cloud.Fail = nil
		case e < 85:
			w.start()
		default:
			w.daemon.look = time.Time{}
			w.pass()
		}
		w.sound()
		if r.problem != "" {
			r.problem = fmt.Sprintf("event %d of %v: %s", i, events, r.problem)
			return
		}
	}
	w.daemon.look, w.daemon.memory = time.Time{}, vpc.Memory{}
	w.pass()
	w.sound()
	return
}

// What a node tells of itself is a contract with scripts.
func TestAnswer(t *testing.T) {
	inBubble(t, nil, func(w *world) {
		recorder := httptest.NewRecorder()
		w.daemon.Handler().ServeHTTP(recorder, httptest.NewRequest("GET", "/healthz", nil))
		w.expect("503 starting\n", fmt.Sprint(recorder.Code, " ", recorder.Body))
		w.pass()
		w.must(1, 3)
		w.settleFor(20 * time.Second)
		w.remove(3)
		w.pass()
		for path, want := range map[string]string{"/healthz": "200 ok\n", "/livez": "200 ok\n"} {
			recorder := httptest.NewRecorder()
			w.daemon.Handler().ServeHTTP(recorder, httptest.NewRequest("GET", path, nil))
			w.expect(want, fmt.Sprint(recorder.Code, " ", recorder.Body))
		}
		recorder = httptest.NewRecorder()
		w.daemon.Handler().ServeHTTP(recorder, httptest.NewRequest("GET", "/v1/addresses", nil))
		var v view.Addresses
		if err := json.Unmarshal(recorder.Body.Bytes(), &v); err != nil {
			w.Fatalf("%v", err)
		}
		v.Looked = time.Time{}
		text, _ := json.MarshalIndent(v, "", "  ")
		golden.Check(t, "node.json", string(text)+"\n")
	})
}

// Somebody changes the security groups of the primary interface: the others have them within half a minute, for one
// question and one call each.
func TestSecurityGroupsFollow(t *testing.T) {
	inBubble(t, nil, func(w *world) {
		w.pass()
		w.must(1, 5)
		w.settleFor(10 * time.Second)
		w.must(6, 6)
		w.settleFor(40 * time.Second)
		w.expect("3 interfaces, 15 addresses", w.have())
		asked, called := w.cloud.asked, len(w.cloud.Calls)
		w.cloud.SetGroups("eni-1", "sg-1", "sg-2")
		w.settleFor(groupsEvery + time.Second)
		for _, i := range w.cloud.Interfaces() {
			w.expect("[sg-1 sg-2]", fmt.Sprint(i.SecurityGroups))
		}
		if asked, called = w.cloud.asked-asked, len(w.cloud.Calls)-called; asked > 2 || called != 2 {
			w.Errorf("asked %d times, with %d calls", asked, called)
		}
	})
}
