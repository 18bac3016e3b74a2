package command

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"
)

// progress shows steps as kind does: on a terminal a spinner that becomes a tick, elsewhere plain
// lines. Colours are left out where NO_COLOR is set or TERM is dumb.
type progress struct {
	out   io.Writer
	live  bool
	color bool

	mu    sync.Mutex
	step  string
	begin time.Time
	stop  chan struct{}
	ended chan struct{}
}

func newProgress(out io.Writer) *progress {
	p := &progress{out: out}
	if f, ok := out.(*os.File); ok && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb" {
		p.live = true
		p.color = os.Getenv("NO_COLOR") == ""
	}
	return p
}

func (p *progress) say(format string, args ...any) { fmt.Fprintf(p.out, format+"\n", args...) }

var frames = []rune("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏")

func (p *progress) start(step string) {
	p.step, p.begin = step, time.Now()
	if !p.live {
		return
	}
	p.stop, p.ended = make(chan struct{}), make(chan struct{})
	go func() {
		defer close(p.ended)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for i := 0; ; i++ {
			fmt.Fprintf(p.out, "\r\033[K %c %s  %.1fs", frames[i%len(frames)], step, time.Since(p.begin).Seconds())
			select {
			case <-tick.C:
			case <-p.stop:
				fmt.Fprint(p.out, "\r\033[K")
				return
			}
		}
	}()
}

func (p *progress) done(took time.Duration) { p.end(" ✓ ", "32", took) }

// fail ends the step under way, if there is one.
func (p *progress) fail() { p.end(" ✗ ", "31", time.Since(p.begin)) }

func (p *progress) finish() { p.end(" ✓ ", "32", time.Since(p.begin)) }

func (p *progress) end(mark, color string, took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.step == "" {
		return
	}
	if p.stop != nil {
		close(p.stop)
		<-p.ended
		p.stop = nil
	}
	if p.color {
		mark = "\033[" + color + "m" + mark + "\033[0m"
	}
	fmt.Fprintf(p.out, "%s%s  %.1fs\n", mark, p.step, took.Seconds())
	p.step = ""
}
