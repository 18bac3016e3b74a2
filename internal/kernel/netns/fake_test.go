package netns

import (
	"errors"
	"testing"
)

func TestFake(t *testing.T) {
	var f Fake
	if _, err := f.Open("/a"); !errors.Is(err, ErrGone) {
		t.Errorf("before it is there: %v", err)
	}
	f.Add("/a")
	ns, err := f.Open("/a")
	if err != nil || ns.Path() != "/a" || f.Opened() != 1 {
		t.Fatalf("got %v, %v", ns, err)
	}
	entered := false
	if err := ns.Do(func() error { entered = true; return nil }); err != nil || !entered {
		t.Errorf("do: %v", err)
	}
	if err := ns.Close(); err != nil || f.Opened() != 0 {
		t.Errorf("close: %v, %d open", err, f.Opened())
	}
	f.Remove("/a")
	if _, err := f.Open("/a"); !errors.Is(err, ErrGone) {
		t.Errorf("after it has gone: %v", err)
	}
}
