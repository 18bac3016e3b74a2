package controller

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

type fakeLeaks struct {
	leaked  []string
	stuck   string // cannot be deleted
	deleted []string
}

func (f *fakeLeaks) Leaked(context.Context) ([]string, error) { return f.leaked, nil }

func (f *fakeLeaks) Delete(_ context.Context, id string) error {
	if id == f.stuck {
		return errors.New(id + ": no")
	}
	f.leaked = slices.DeleteFunc(slices.Clone(f.leaked), func(x string) bool { return x == id })
	f.deleted = append(f.deleted, id)
	return nil
}

// One that cannot be deleted is told and tried again; the others go.
func TestLeaksAreCollected(t *testing.T) {
	f := &fakeLeaks{leaked: []string{"eni-1", "eni-2", "eni-3"}, stuck: "eni-2"}
	opened := 0
	c := newCollector(func(context.Context) (Leaks, error) {
		if opened++; opened == 1 {
			return nil, errors.New("no credentials")
		}
		return f, nil
	}, slog.New(slog.DiscardHandler))
	if err := c.pass(t.Context()); err == nil {
		t.Error("no credentials, and no error")
	}
	if err := c.pass(t.Context()); err == nil || err.Error() != "eni-2: no" {
		t.Error(err)
	}
	f.stuck = ""
	if err := c.pass(t.Context()); err != nil {
		t.Error(err)
	}
	if !slices.Equal(f.deleted, []string{"eni-1", "eni-3", "eni-2"}) || opened != 2 || testutil.ToFloat64(c.deleted) != 3 {
		t.Errorf("deleted %v, opened %d times", f.deleted, opened)
	}
}
