package cli

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/zonewise/zonewise/internal/controller/view"
)

// user sits before a terminal: types, and reads what it shows.
type user struct {
	t    *testing.T
	pty  *os.File
	tty  *os.File
	seen chan string // everything, piece by piece
	text strings.Builder
}

func newUser(t *testing.T, width, height uint16) *user {
	t.Helper()
	pty, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	fd := int(pty.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: height, Col: width}); err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	u := &user{t: t, pty: pty, tty: tty, seen: make(chan string, 100)}
	t.Cleanup(func() { _, _ = pty.Close(), tty.Close() })
	go func() {
		defer close(u.seen)
		for r := bufio.NewReader(pty); ; {
			b := make([]byte, 4096)
			n, err := r.Read(b)
			if err != nil {
				return
			}
			u.seen <- string(b[:n])
		}
	}()
	return u
}

// sees waits until the terminal has shown a text, and forgets what was before.
func (u *user) sees(what string) string {
	u.t.Helper()
	for {
		if before, after, ok := strings.Cut(u.text.String(), what); ok {
			u.text.Reset()
			u.text.WriteString(after)
			return before
		}
		select {
		case s, ok := <-u.seen:
			if !ok {
				u.t.Fatalf("the terminal never showed %q: %q", what, u.text.String())
			}
			u.text.WriteString(s)
		case <-u.t.Context().Done():
			u.t.Fatalf("the terminal never showed %q: %q", what, u.text.String())
		}
	}
}

func (u *user) types(keys string) {
	if _, err := u.pty.WriteString(keys); err != nil {
		u.t.Error(err)
	}
}

// begin runs top at the user's terminal, and returns how it ended.
func (u *user) begin(ctx context.Context, s *shop, args ...string) <-chan int {
	ended := make(chan int, 1)
	root := root("zonewise")
	root.SetArgs(append(append([]string{"top"}, args...), "--kubeconfig", s.kubeconfig))
	root.SetIn(u.tty)
	root.SetOut(u.tty)
	root.SetErr(u.tty)
	go func() {
		err := root.ExecuteContext(ctx)
		if err != nil {
			u.t.Error(err)
		}
		ended <- exitCode(err)
	}()
	return ended
}

func TestTopOnATerminal(t *testing.T) {
	failing := make(chan bool, 1)
	s := newShop(t, func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-failing:
			says(503, "the store is gone")(w, r)
			return
		default:
		}
		q := r.URL.Query()
		answers(view.Traffic{Schema: view.TrafficSchema, By: q.Get("by"), Notes: []string{"a node is new"},
			Lines: []view.Line{{Name: fmt.Sprintf("by-%s-limit-%s", q.Get("order"), q.Get("limit")), Packets: 7}}})(w, r)
	})
	for name, end := range map[string]func(*user, context.CancelFunc){
		"q":       func(u *user, _ context.CancelFunc) { u.types("q") },
		"Ctrl-C":  func(u *user, _ context.CancelFunc) { u.types("\x03") },
		"SIGTERM": func(_ *user, stop context.CancelFunc) { stop() },
	} {
		t.Run(name, func(t *testing.T) {
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			u := newUser(t, 90, 20)
			before, err := term.GetState(int(u.tty.Fd()))
			if err != nil {
				t.Fatal(err)
			}
			ended := u.begin(ctx, s, "services", "--every", "1s")
			u.sees(otherScreen)
			u.sees("zonewise top services, last 1m, by bytes")
			u.sees("by-bytes-limit-20")
			u.sees("note: a node is new")
			u.types("p")
			u.sees("by packets")
			u.sees("PACKETS")
			u.sees("by-packets-limit-20")
			failing <- true // what was known stays, with what is wrong
			u.sees("by-packets-limit-20")
			u.sees("zonewise: controller zonewise/leader: the store is gone")
			end(u, stop)
			if code := <-ended; code != exitOK {
				t.Errorf("exit code %d", code)
			}
			u.sees(firstScreen)
			after, err := term.GetState(int(u.tty.Fd()))
			if err != nil {
				t.Fatal(err)
			}
			if *before != *after {
				t.Errorf("the terminal is not as it was: %+v, before %+v", after, before)
			}
		})
	}
}

// The terminal is given back by whoever panics while it is drawn, or beside it.
func TestAScreenIsGivenBackInAPanic(t *testing.T) {
	for name, way := range map[string]func(*screen) func(){
		"drawing": func(s *screen) func() { return s.close },
		"beside":  func(s *screen) func() { return s.giveBack },
	} {
		t.Run(name, func(t *testing.T) {
			u := newUser(t, 80, 24)
			before, _ := term.GetState(int(u.tty.Fd()))
			func() {
				defer func() {
					if recover() == nil {
						t.Error("the panic is gone")
					}
				}()
				s, err := openScreen(u.tty, u.tty)
				if err != nil {
					t.Fatal(err)
				}
				defer way(s)()
				panic("of a test")
			}()
			if after, _ := term.GetState(int(u.tty.Fd())); *before != *after {
				t.Error("the terminal is not as it was")
			}
			u.sees(firstScreen)
		})
	}
}

func TestAScreenShowsNoMoreThanItHasPlaceFor(t *testing.T) {
	u := newUser(t, 10, 3)
	s, err := openScreen(u.tty, u.tty)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if err := s.draw(bytes.Repeat([]byte("0123456789 and more\n"), 9)); err != nil {
		t.Fatal(err)
	}
	u.sees(toTop)
	shown := u.sees(restOfAll)
	if want := "0123456789" + restOfLine; shown != want+"\r\n"+want+"\r\n"+want {
		t.Errorf("%q", shown)
	}
}
