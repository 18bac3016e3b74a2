package cli

import (
	"bytes"
	"fmt"
	"os"

	"golang.org/x/term"

	"github.com/zonewise/zonewise/internal/cli/report"
)

// screen is a terminal that is drawn on whole, and whose keys come one by one.
type screen struct {
	in, out *os.File
	before  *term.State
	keys    chan byte
	done    chan struct{}
}

// What terminals obey. The other screen leaves what was there before untouched.
const (
	otherScreen = "\x1b[?1049h\x1b[?25l" // and no cursor
	firstScreen = "\x1b[?25h\x1b[?1049l"
	toTop       = "\x1b[H"
	restOfLine  = "\x1b[K"
	restOfAll   = "\x1b[J"
)

// openScreen takes the terminal until close.
func openScreen(in, out *os.File) (*screen, error) {
	before, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		return nil, fmt.Errorf("terminal: %w", err)
	}
	s := &screen{in: in, out: out, before: before, keys: make(chan byte), done: make(chan struct{})}
	if _, err := out.WriteString(otherScreen); err != nil {
		s.close()
		return nil, fmt.Errorf("terminal: %w", err)
	}
	go s.read()
	return s, nil
}

// close gives the terminal back as it was.
func (s *screen) close() {
	close(s.done)
	_, _ = s.out.WriteString(firstScreen)
	_ = term.Restore(int(s.in.Fd()), s.before)
}

// giveBack is deferred by whoever works beside the one that closes: where it panics, nobody else would.
func (s *screen) giveBack() {
	if r := recover(); r != nil {
		s.close()
		panic(r)
	}
}

// read ends when the terminal does, or with the process: nothing wakes who waits for a key.
func (s *screen) read() {
	defer close(s.keys)
	b := make([]byte, 1)
	for {
		if n, err := s.in.Read(b); n == 0 || err != nil {
			return
		}
		select {
		case s.keys <- b[0]:
		case <-s.done:
			return
		}
	}
}

func (s *screen) place() report.Place { return place(s.out) }

// draw shows a text from the top, as much of it as there is place for.
func (s *screen) draw(text []byte) error {
	at := s.place()
	var b bytes.Buffer
	b.WriteString(toTop)
	lines := bytes.Split(bytes.TrimRight(text, "\n"), []byte("\n"))
	for i, l := range lines {
		if at.Height > 0 && i == at.Height {
			break
		}
		if i > 0 {
			b.WriteString("\r\n")
		}
		r := []rune(string(l))
		if at.Width > 0 && len(r) > at.Width {
			r = r[:at.Width]
		}
		b.WriteString(string(r) + restOfLine)
	}
	b.WriteString(restOfAll)
	_, err := s.out.Write(b.Bytes())
	return err
}
