package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"k8s.io/client-go/kubernetes"

	"github.com/zonewise/zonewise/internal/model"
)

// Config is what delivery needs. Everything but URL is required.
type Config struct {
	Client    kubernetes.Interface
	Namespace string // of the controller
	Source    Source
	Handler   *Handler
	Keys      *Keys
	Log       *slog.Logger
	// Say makes an event of what happened.
	Say func(warning bool, reason, message string)
	// Changed hears when Status has become another. It must not block.
	Changed func()
	URL     string // where the API server reaches the webhook, instead of the Service; for trials
}

// Status tells whether hints reach the cluster, and why not.
type Status struct {
	Delivering bool
	Reason     string // one of the reasons below
	Message    string
	Since      time.Time
}

// Reasons, of a status and of the events that tell of it.
const (
	Idle       = "NotNeeded"    // no Service wants hints
	Trying     = "Trying"       // the way through the API server is being tried
	Delivering = "Delivering"   // the webhook is asked, and answers
	Lags       = "WebhookLags"  // withdrawn: it held writes up
	Fails      = "WebhookFails" // withdrawn: writes failed, or came back without hints
	WritesFail = "WritesFail"   // slices cannot be written, without us neither
	Repaired   = "WebhookRepaired"
)

// How the webhook is watched. From the first write that suffers to the withdrawal it takes at most
// two probes more than strikes periods; where probes are held up, a period, a probe, and strikes x
// (both probes at once, a repair, hurry): under 10 s.
const (
	period       = 2 * time.Second        // between two probes
	hurry        = 300 * time.Millisecond // the same after one that was held up
	strikes      = 3                      // probes in a row that make us withdraw
	lag          = 500 * time.Millisecond // a slower write is as bad as a failed one
	probeLimit   = 1500 * time.Millisecond
	controlLimit = 700 * time.Millisecond
	callLimit    = time.Second // of other calls to the API server
	// patience is how long the way is tried before it counts as blocked. A pod that has just begun
	// is not among its Service's endpoints yet.
	patience   = 20 * time.Second
	minBackoff = time.Minute
	maxBackoff = 30 * time.Minute
	// proven is how long delivery must have gone well for the next withdrawal to count as the first.
	proven = 30 * time.Minute
)

// writer writes slices of our own, and registrar has the API server ask about the slices of others.
type writer interface {
	dry(ctx context.Context, manager, word string) result
	real(ctx context.Context, word string) error
}

type registrar interface {
	put(ctx context.Context, bundle []byte, managers ...string) (changed bool, err error)
	whole(ctx context.Context, bundle []byte) bool
	remove(ctx context.Context) error
}

// Deliverer keeps hints on the slices of a cluster for as long as it leads.
type Deliverer struct {
	config  Config
	prober  writer
	entry   registrar
	toucher *toucher

	// Of Run's goroutine alone.
	backoff time.Duration
	retryAt time.Time
	misses  int // writes in a row that fared worse for our being asked
	blames  int // writes in a row that fared badly all the same
	words   int
	bundle  string    // as the API server was last given it
	mended  bool      // since the last probe that went well
	since   time.Time // when delivery began

	mu      sync.Mutex
	status  Status
	refused int // touches in a row that the API server refused
	cause   error
}

// New returns a deliverer that has not begun.
func New(c Config) *Deliverer {
	d := &Deliverer{
		config: c, prober: prober{c.Client, c.Namespace},
		entry:   registration{c.Client, c.Namespace, c.URL},
		toucher: newToucher(c.Client, c.Source, c.Log),
	}
	d.toucher.active = func() bool { return d.Status().Delivering }
	d.toucher.failed = d.refuse
	d.toucher.others = func(err error) {
		d.config.Say(true, WritesFail, "An EndpointSlice cannot be written, and hints are not why: "+err.Error())
	}
	return d
}

// Status returns how delivery stands.
func (d *Deliverer) Status() Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.status
}

// Look asks for a look at a Service: its plan or its slices have changed. It never blocks.
func (d *Deliverer) Look(svc model.Name) { d.toucher.queue.Add(svc) }

// Run delivers until ctx ends, once. The registration then stays: another replica may answer, and
// if none does the failure policy lets every write pass.
func (d *Deliverer) Run(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() { d.toucher.run(ctx) })
	d.adopt(ctx)
	for ctx.Err() == nil {
		next := time.NewTimer(d.tick(ctx))
		select {
		case <-next.C:
		case <-ctx.Done():
		}
		next.Stop()
	}
	wg.Wait()
}

// adopt takes delivery over where the last leader left it.
func (d *Deliverer) adopt(ctx context.Context) {
	d.set(false, Trying, "")
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	bundle, err := d.config.Keys.Ensure(ctx, time.Now())
	if err != nil || !d.entry.whole(ctx, bundle) {
		return
	}
	if r := d.dry(ctx, managedByProbe, probeLimit); r.hinted && r.took < lag {
		d.since, d.bundle = time.Now(), string(bundle)
		d.set(true, Delivering, "")
	}
}

// tick looks once, and returns when to look again.
func (d *Deliverer) tick(ctx context.Context) time.Duration {
	switch wanted, known := d.config.Source.Any(); {
	case known && !wanted:
		d.rest(ctx)
	case d.Status().Delivering:
		return d.watch(ctx)
	case !known:
	case time.Now().Before(d.retryAt):
		if !d.remove(ctx) { // those whose slices wait cannot
			return hurry
		}
	default:
		d.try(ctx)
	}
	return period
}

// rest stops the API server from asking while nobody wants hints.
func (d *Deliverer) rest(ctx context.Context) {
	if d.Status().Reason == Idle {
		return
	}
	if !d.remove(ctx) {
		return
	}
	d.backoff, d.retryAt, d.misses = 0, time.Time{}, 0
	d.set(false, Idle, "no Service wants hints")
	d.toucher.all() // takes off what is on
}

// try has the API server ask about slices of ours, and about all only if those fare well.
func (d *Deliverer) try(ctx context.Context) {
	d.set(false, Trying, "the way through the API server is being tried")
	if err := d.attempt(ctx); err != nil {
		reason := Fails
		if without := d.dry(ctx, managedByControl, controlLimit); without.err != nil {
			reason = WritesFail
		}
		if ctx.Err() == nil {
			d.withdraw(ctx, reason, "tried on a slice of our own: "+err.Error())
		}
		return
	}
	d.misses, d.mended, d.since = 0, false, time.Now()
	d.set(true, Delivering, "")
	d.config.Say(false, Delivering, "Hints of planned Services are put on their EndpointSlices")
	d.toucher.all()
}

func (d *Deliverer) attempt(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	bundle, err := d.config.Keys.Ensure(ctx, time.Now())
	if err != nil {
		return err
	}
	if _, err := d.entry.put(ctx, bundle, managedByProbe); err != nil {
		return err
	}
	if err := d.untilHinted(ctx); err != nil {
		return err
	}
	if err := d.prober.real(ctx, d.word()); err != nil {
		return err
	}
	if _, err := d.entry.put(ctx, bundle, managedByStock, managedByProbe); err != nil {
		return err
	}
	d.bundle = string(bundle)
	return d.untilHinted(ctx)
}

// untilHinted waits for a write that is hinted without delay.
func (d *Deliverer) untilHinted(ctx context.Context) error {
	tick := time.NewTicker(hurry)
	defer tick.Stop()
	for {
		r := d.dry(ctx, managedByProbe, probeLimit)
		if r.bad() == "" {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.New(r.bad())
		}
	}
}

// bad says what is wrong with a write of ours; nothing if it is empty.
func (r result) bad() string {
	took := r.took.Round(time.Millisecond)
	switch {
	case r.err != nil:
		return fmt.Sprintf("a write failed after %v: %v", took, r.err)
	case !r.hinted:
		return fmt.Sprintf("a write came back without hints after %v", took)
	case r.took >= lag:
		return fmt.Sprintf("a write took %v", took)
	}
	return ""
}

// watch makes sure that the webhook does no harm, and withdraws it if it does.
func (d *Deliverer) watch(ctx context.Context) time.Duration {
	if err := d.takeRefused(); err != nil {
		d.withdraw(ctx, Fails, "slices cannot be written any more: "+err.Error())
		return period
	}
	slow := d.config.Handler.Slowest()
	if d.misses == 0 && slow < lag && d.dry(ctx, managedByProbe, probeLimit).bad() == "" {
		d.well(ctx)
		return period
	}
	with, without := d.both(ctx)
	if ctx.Err() != nil {
		return period
	}
	var what string
	switch {
	case with.suffers(without):
		what = with.bad()
	case slow >= lag:
		what = fmt.Sprintf("an answer took %v", slow.Round(time.Millisecond))
	case without.bad() != "":
		d.blame(without)
		return period
	default:
		d.well(ctx)
		return period
	}
	next := period
	if with.took >= lag {
		next = hurry // it took its time already
	}
	if d.repair(ctx) && !d.mended {
		d.mended = true // what is put right again and again is not what is wrong
		return next
	}
	if d.misses++; d.misses < strikes {
		d.config.Log.Warn("hints: the webhook is not well", "what", what, "times", d.misses)
		return next
	}
	reason := Fails
	if with.took >= lag || slow >= lag {
		reason = Lags
	}
	d.withdraw(ctx, reason, fmt.Sprintf("%s, %d times in a row", what, d.misses))
	return period
}

// both writes where we are asked and where we are not, at the same time: on a machine that is slow
// for a moment both are.
func (d *Deliverer) both(ctx context.Context) (with, without result) {
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	one, two := d.word(), d.word()
	var wg sync.WaitGroup
	wg.Go(func() { with = d.prober.dry(ctx, managedByProbe, one) })
	wg.Go(func() { without = d.prober.dry(ctx, managedByControl, two) })
	wg.Wait()
	without.hinted = without.err == nil // nobody hints it
	return with, without
}

// suffers tells whether a write fares worse than one where we are not asked.
func (r result) suffers(without result) bool {
	return r.took-without.took >= lag || without.err == nil && (r.err != nil || !r.hinted)
}

// well follows a probe that was as it must be.
func (d *Deliverer) well(ctx context.Context) {
	if d.misses, d.blames = 0, 0; time.Since(d.since) > proven {
		d.backoff = 0
	}
	if !d.repair(ctx) {
		d.mended = false
	}
	d.set(true, Delivering, "")
}

// blame says that slices fare badly where we are not asked, too: then it is not us.
func (d *Deliverer) blame(without result) {
	d.misses = 0
	if d.blames++; d.blames == strikes {
		message := "EndpointSlices cannot be written in time, and hints are not why: " + without.bad()
		d.set(true, WritesFail, message)
		d.config.Say(true, WritesFail, message)
	}
}

// repair puts certificate and registration right, and tells whether the API server was asked to do
// something other than before.
func (d *Deliverer) repair(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	bundle, err := d.config.Keys.Ensure(ctx, time.Now())
	changed := false
	if err == nil {
		changed, err = d.entry.put(ctx, bundle, managedByStock, managedByProbe)
	}
	if err != nil {
		d.config.Log.Warn("hints: registration", "error", err)
		return false
	}
	renewed := string(bundle) != d.bundle
	d.bundle = string(bundle)
	if changed && !renewed {
		d.config.Say(true, Repaired, "MutatingWebhookConfiguration "+ConfigurationName+" was not as it must be; it was put right")
	}
	return changed
}

// withdraw stops the API server from asking, for a while.
func (d *Deliverer) withdraw(ctx context.Context, reason, message string) {
	d.backoff = min(max(2*d.backoff, minBackoff), maxBackoff)
	d.retryAt = time.Now().Add(d.backoff)
	d.misses = 0
	d.remove(ctx) // tick goes on trying
	message = fmt.Sprintf("%s. Withdrawn for %v", message, d.backoff)
	d.set(false, reason, message)
	d.config.Say(true, reason, message)
	d.toucher.all() // takes off what is out of date
}

// remove tells whether the API server does not ask any more.
func (d *Deliverer) remove(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	err := d.entry.remove(ctx)
	if err != nil && ctx.Err() == nil {
		d.config.Log.Error("hints: the webhook could not be withdrawn", "error", err)
	}
	return err == nil
}

func (d *Deliverer) dry(ctx context.Context, manager string, atMost time.Duration) result {
	ctx, cancel := context.WithTimeout(ctx, atMost)
	defer cancel()
	return d.prober.dry(ctx, manager, d.word())
}

// word returns a word that no earlier probe had.
func (d *Deliverer) word() string {
	d.words++
	return fmt.Sprintf("probe-%d-%d", time.Now().Unix(), d.words)
}

// refuse counts touches that the API server refused.
func (d *Deliverer) refuse(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cause = err; err == nil {
		d.refused = 0
	} else {
		d.refused++
	}
}

func (d *Deliverer) takeRefused() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.refused < strikes {
		return nil
	}
	d.refused = 0
	return d.cause
}

func (d *Deliverer) set(delivering bool, reason, message string) {
	d.mu.Lock()
	changed := d.status.Delivering != delivering || d.status.Reason != reason || d.status.Message != message
	if changed {
		d.status = Status{delivering, reason, message, time.Now()}
	}
	d.mu.Unlock()
	if !changed {
		return
	}
	d.config.Log.Info("hints: "+reason, "message", message)
	d.config.Changed()
}
