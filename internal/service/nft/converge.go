package nft

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/zonewise/zonewise/internal/kernel/nft"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
)

// coldLot is how many elements go into one transaction when an empty table is filled: the kernel
// serves nobody else's changes while it works on one.
const coldLot = 32768

// converge reads the kernel and makes it hold what is wanted. It tells whether it had to write.
func (a *Applier) converge() (wrote bool, err error) {
	a.have, a.chains, a.applied = nil, nil, true
	if a.generation, err = a.kernel.Generation(); err != nil {
		return false, fmt.Errorf("service table: %w", err)
	}
	contents, there, err := a.kernel.Read(tableName)
	if err != nil {
		return false, fmt.Errorf("service table: %w", err)
	}
	_, ours := contents.Chains[layoutChain]
	_, elder := contents.Chains[elderChain]
	switch {
	case ours || elder:
		wrote, err = a.adopt(contents)
	case !there:
		wrote, err = true, a.install(nft.NewBatch(tableName), tableName)
	case a.complete:
		wrote, err = true, a.supplant()
	default:
		return false, nil // another layout's: it serves better than what we know of so far
	}
	if err == nil {
		err = a.stepOut()
	}
	if err != nil {
		return false, err
	}
	for k := range a.owners {
		if k.Protocol == model.UDP {
			a.cut[k] = true
		}
	}
	if a.complete {
		if err := a.sweep(); err != nil {
			return wrote, err
		}
	}
	return wrote, a.cutFlows()
}

// adopt brings a table of our layout to what is wanted.
func (a *Applier) adopt(contents nft.Contents) (wrote bool, err error) {
	have, err := a.read(contents)
	if err != nil {
		return false, err
	}
	b := nft.NewBatch(tableName)
	a.have, a.chains = have, a.repair(b, contents)
	if _, elder := contents.Chains[elderChain]; elder {
		b.DelChain(elderChain)
	}
	return a.transact(b, diff(have, a.compile(have), a.prunable()))
}

// install makes the table, after what is in the batch already.
func (a *Applier) install(b *nft.Batch, table string) error {
	slots := 0
	for _, frontends := range a.want {
		for _, f := range frontends {
			slots += len(f.Backends)
		}
	}
	a.have, a.chains = newImageFor(len(a.owners), slots), a.repair(b, nft.Contents{})
	return a.fill(b, table)
}

// supplant replaces a table of another layout. Another table serves meanwhile: a packet that is
// between the chains of the old one and the new one would be served by neither.
func (a *Applier) supplant() error {
	if err := a.stepOut(); err != nil {
		return err
	}
	if err := a.install(nft.NewBatch(interimTable), interimTable); err != nil {
		return err
	}
	b := nft.NewBatch(tableName)
	b.DelTable()
	return a.install(b, tableName)
}

// stepOut deletes the interim table: ours, or one that a predecessor left when it was killed.
func (a *Applier) stepOut() error {
	_, there, err := a.kernel.Read(interimTable)
	if err == nil && there {
		b := nft.NewBatch(interimTable)
		b.DelTable()
		err = a.write(b)
	}
	if err != nil {
		a.have, a.chains = nil, nil
		return fmt.Errorf("service table: interim: %w", err)
	}
	return nil
}

// read fetches the elements of the sets that are there.
func (a *Applier) read(contents nft.Contents) (image, error) {
	m := newImage()
	for _, s := range programmed {
		if !contents.Sets[s.Name] {
			continue
		}
		elements, err := a.kernel.Elements(tableName, s)
		if err != nil {
			return nil, fmt.Errorf("service table: %w", err)
		}
		for _, e := range elements {
			m[s.Name][e.Key] = e
		}
	}
	return m, nil
}

// repair queues whatever of the table's frame is missing or was tampered with, and returns the
// counted chains that are sound.
func (a *Applier) repair(b *nft.Batch, contents nft.Contents) map[nft.Verdict]bool {
	if contents.Chains == nil {
		b.AddTable()
	}
	for _, s := range append(slices.Clone(programmed), connections, traffic) {
		if !contents.Sets[s.Name] {
			b.AddSet(s)
		}
	}
	fix := func(c chain) {
		comments, ok := contents.Chains[c.Name]
		switch {
		case !ok:
			addChain(b, c)
		case !slices.Equal(comments, c.comments()):
			b.FlushChain(c.Name)
			for _, r := range c.rules {
				b.AddRule(c.Name, r)
			}
		}
	}
	for _, c := range a.layout.chains() {
		fix(c)
	}
	sound := map[nft.Verdict]bool{}
	for name := range contents.Chains {
		for _, c := range a.layout.build(nft.Verdict(name)) {
			if !sound[nft.Verdict(c.Name)] {
				sound[nft.Verdict(c.Name)] = true
				fix(c)
			}
		}
	}
	return sound
}

// compile returns the elements that everything wanted needs, and counts those that are shared.
func (a *Applier) compile(have image) image {
	want := newImage()
	a.uses = map[use]int{}
	for k := range a.owners {
		f, _ := a.wanted(k)
		have.place(f, want)
		a.share(f, +1)
	}
	return want
}

// prunable tells what may go. While inputs are incomplete that is only what belongs to frontends
// that are wanted: an endpoint more than they have now.
func (a *Applier) prunable() func(set, key string) bool {
	if a.complete {
		return func(set, _ string) bool { return set != hairpin.Name }
	}
	mine := make(map[string]bool, len(a.owners))
	for k := range a.owners {
		mine[frontend(k)] = true
	}
	const keyLength = 12
	return func(set, key string) bool {
		return set != clusterIPs.Name && set != hairpin.Name && mine[key[:keyLength]]
	}
}

// fill writes everything into an empty table, a lot of Services at a time. b makes the table.
func (a *Applier) fill(b *nft.Batch, table string) error {
	empty, lot := newImage(), newImage()
	a.uses = map[use]int{}
	flush := func() error {
		d := diff(a.have, lot, nil)
		d.writeChains(b, a.layout, a.chains)
		d.writeElements(b)
		err := a.commit(b, d)
		b = nft.NewBatch(table)
		lot.empty()
		return err
	}
	for _, frontends := range a.want {
		// A Service goes whole: a cluster IP refuses the ports that it does not have yet.
		for _, f := range frontends {
			if w, ok := a.wanted(f.Key()); ok && w.Service == f.Service {
				empty.place(f, lot)
				a.share(f, +1)
			}
		}
		if lot.size() >= a.lot {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// sweep deletes what nothing uses any more, in a transaction after the one that ended its use: a
// packet that is on its way may still need it. That is counted chains, and hairpins, which do
// nothing unless an endpoint reaches itself.
func (a *Applier) sweep() error {
	var gone []nft.Element
	for key, e := range a.have[hairpin.Name] {
		if a.uses[use{hairpin.Name, key}] == 0 {
			gone = append(gone, e)
		}
	}
	idle := a.idle()
	if len(gone)+len(idle) == 0 {
		return nil
	}
	b := nft.NewBatch(tableName)
	b.Delete(hairpin, gone...)
	for _, name := range idle {
		b.FlushChain(name)
	}
	for _, name := range idle {
		b.DelChain(name)
	}
	err := a.write(b)
	if errors.Is(err, syscall.EBUSY) {
		return nil // a kernel before 6.2 holds on to a chain for a moment longer: next time
	}
	if err != nil {
		a.have, a.chains = nil, nil
		return fmt.Errorf("service table: sweep: %w", err)
	}
	for _, e := range gone {
		delete(a.have[hairpin.Name], e.Key)
	}
	for _, name := range idle {
		delete(a.chains, nft.Verdict(name))
	}
	return nil
}

// idle returns the counted chains that nothing goes to, lb-N last: ext-N and local-N go there.
func (a *Applier) idle() []string {
	used := map[nft.Verdict]bool{}
	for _, s := range []nft.Set{services, inside} {
		for _, e := range a.have[s.Name] {
			if used[e.Verdict] {
				continue
			}
			for _, c := range a.layout.build(e.Verdict) {
				used[nft.Verdict(c.Name)] = true
			}
		}
	}
	var out []string
	for v := range a.chains {
		if !used[v] {
			out = append(out, string(v))
		}
	}
	slices.SortFunc(out, func(x, y string) int { return strings.Compare(rank(x), rank(y)) })
	return out
}

// rank sorts lb- chains behind all others.
func rank(name string) string {
	if strings.HasPrefix(name, string(balance)) {
		return "1" + name
	}
	return "0" + name
}

// share notes that a frontend uses, or no longer uses, elements that others may use too.
func (a *Applier) share(f service.Frontend, by int) []use {
	var list []use
	if f.Kind == service.ClusterIP {
		list = append(list, use{clusterIPs.Name, address4(f.Addr.Addr())})
	}
	choices := []service.Choice{f.Choice}
	if f.Inside != nil {
		choices = append(choices, *f.Inside)
	}
	for _, c := range choices {
		for _, b := range c.Backends {
			if b.Local {
				ip := address4(b.Addr.Addr())
				list = append(list, use{hairpin.Name, ip + ip})
			}
		}
	}
	for _, u := range list {
		if a.uses[u] += by; a.uses[u] == 0 {
			delete(a.uses, u)
		}
	}
	return list
}
