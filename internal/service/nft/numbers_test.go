package nft

import (
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/zonewise/zonewise/internal/kernel/conntrack"
	"github.com/zonewise/zonewise/internal/kernel/nft"
)

func TestNumbers(t *testing.T) {
	n := newNumbers()
	own := n.number("lb-1")
	if n.number("lb-1") != own || n.number("lb-2") == own {
		t.Error("a number is not one name's")
	}
	if got := numberIn(valueOf(own)); got != own {
		t.Errorf("%x became %x", own, got)
	}
	// Another has it already.
	taken := newNumbers()
	taken.learn(own, "lb-9")
	next := taken.number("lb-1")
	if next == own || taken.number("lb-9") != own {
		t.Errorf("lb-1 has %x, lb-9 %x", next, taken.number("lb-9"))
	}
	taken.forget(own)
	taken.forget(next)
	if taken.number("lb-1") != own {
		t.Error("a number that was forgotten is not free")
	}
	// Of two numbers in the kernel it is always the same one, whichever is read first.
	for _, first := range []string{own, next} {
		two := newNumbers()
		two.learn(first, "lb-1")
		two.learn(own, "lb-1")
		two.learn(next, "lb-1")
		if two.number("lb-1") != min(own, next) {
			t.Errorf("%x of %x and %x", two.number("lb-1"), own, next)
		}
	}
}

// between is a kernel in which, at each transaction, packets are on their way between two look-ups.
type between struct {
	*nft.Fake
	t       *testing.T
	last    []map[string]string // numbers that frontends had before the last transactions, and what they meant
	removes int                 // numbers that went
}

// meant returns what the numbers that frontends have mean; what means nothing is the test's failure.
func (k *between) meant() (led, all map[string]string) {
	led, all = map[string]string{}, map[string]string{}
	for _, s := range []set{services, inside, unreachable, affinity} {
		m, _ := s.meaning()
		elements, err := k.Elements(table4, sets[m])
		ok(k.t, err)
		for _, e := range elements {
			all[sets[m].Name+e.Key] = string(e.Verdict)
		}
		if elements, err = k.Elements(table4, sets[s]); err != nil {
			k.t.Fatal(err)
		}
		for _, e := range elements {
			number := sets[m].Name + numberIn(e.Data)
			if led[number] = all[number]; led[number] == "" {
				k.t.Errorf("%s: the number of %x means nothing", sets[s].Name, e.Key)
			}
		}
	}
	return led, all
}

func (k *between) Commit(b *nft.Batch) error {
	if _, there, _ := k.Read(table4); !there {
		return k.Fake.Commit(b)
	}
	led, before := k.meant()
	err := k.Fake.Commit(b)
	if _, there, _ := k.Read(table4); !there {
		return err
	}
	now, after := k.meant()
	for number, v := range now {
		if before[number] != v {
			k.t.Errorf("a frontend leads to %s, which was not there before", v)
		}
	}
	k.last = append(k.last, led)
	for _, led := range k.last[max(0, len(k.last)-2):] {
		for number, v := range led {
			if after[number] != v {
				k.t.Errorf("who was on the way to %s finds %q", v, after[number])
			}
		}
	}
	if len(after) < len(before) {
		k.removes++
	}
	return err
}

// A number means the same from before a frontend has it until all who may have read it are through.
func TestNumbersAreThereWhileAPacketIsOnItsWay(t *testing.T) {
	removes := 0
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 21))
		k := &between{Fake: &nft.Fake{}, t: t}
		a := New(k, &conntrack.Fake{}, Options{})
		ok(t, a.Apply(nil, true))
		for range 4 {
			for name, plan := range random(r) {
				ok(t, a.Update(desired{name: plan}))
			}
			ok(t, a.Apply(random(r), true))
			ok(t, a.Apply(random(r), true))
		}
		removes += k.removes
	}
	if removes == 0 {
		t.Error("no number ever went")
	}
}

// What was idle when an agent looked at the kernel is swept at once: nobody can be on the way to it.
func TestWhatWasIdleBeforeIsSweptAtOnce(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 22))
	want := random(r)
	fresh, b := world(t)
	ok(t, b.Apply(want, true))
	k, a := world(t)
	ok(t, a.Apply(nil, false))
	others := random(r)
	for name, plan := range others {
		ok(t, a.Update(desired{name: plan}))
	}
	for name := range others {
		ok(t, a.Update(desired{name: nil}))
	}
	for name, plan := range want {
		ok(t, a.Update(desired{name: plan}))
	}
	before := k.Commits
	ok(t, a.Apply(want, true))
	if d := cmp.Diff(meaning(t, fresh), meaning(t, k)); d != "" || k.Commits == before {
		t.Errorf("after the first Apply that knows all, and %d transactions:\n%s", k.Commits-before, d)
	}
}
