package controller

import (
	"testing"

	"github.com/zonewise/zonewise/internal/controller/routes"
	"github.com/zonewise/zonewise/internal/hints/kube"
)

// What ZoneRoutes hear of delivery. Slices that nobody can write keep the hints that they have, so
// that is no withdrawal; one that was tried and failed is.
func TestStanding(t *testing.T) {
	for _, c := range []struct {
		is   kube.Status
		want routes.Standing
		why  string
	}{
		{kube.Status{}, routes.Trying, ""},
		{kube.Status{Reason: kube.Idle}, routes.Trying, ""},
		{kube.Status{Reason: kube.Trying}, routes.Trying, ""},
		{kube.Status{Delivering: true, Reason: kube.Delivering}, routes.Delivering, ""},
		{kube.Status{Delivering: true, Reason: kube.WritesFail, Message: "a write took 1.5s"}, routes.Delivering, ""},
		{kube.Status{Reason: kube.WritesFail}, routes.Withdrawn, kube.WritesFail},
		{kube.Status{Reason: kube.Lags, Message: "a write took 1.5s"}, routes.Withdrawn, kube.Lags},
	} {
		if got, why := standing(c.is); got != c.want || why != c.why {
			t.Errorf("%+v: %s %q, want %s %q", c.is, got, why, c.want, c.why)
		}
	}
	if got, _ := (&delivery{}).Standing(); got != routes.Trying {
		t.Errorf("while another replica leads: %s", got)
	}
}
