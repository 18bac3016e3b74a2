package reflect

import (
	"context"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	k8stesting "k8s.io/client-go/testing"

	"github.com/zonewise/zonewise/internal/reflect/apitest"
	"github.com/zonewise/zonewise/internal/state"
)

const allRanges = `{metadata: {name: kubernetes}, spec: {cidrs: [10.100.0.0/16, "fd00:100::/112"]}}`

func ranges(texts ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range texts {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// The ranges of Services' addresses may change while we run. One that is being deleted counts until
// it is gone.
func TestServiceCIDRsFollowTheAPI(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	api := apitest.New(webService(t), parse[networkingv1.ServiceCIDR](t, allRanges))
	api.Expect("servicecidrs")
	tables := start(t, api, Options{ServiceCIDRs: true})
	until := func(what string, want []netip.Prefix) {
		t.Helper()
		apitest.Until(ctx, t, tables, func(s *state.Snapshot) bool {
			return len(s.Missing()) == 0 && cmp.Equal(want, s.ServiceCIDRs(), byValue)
		})
	}
	until("at first", ranges("10.100.0.0/16", "fd00:100::/112"))
	api.Watched(t)

	cidrs := api.NetworkingV1().ServiceCIDRs()
	more := parse[networkingv1.ServiceCIDR](t, `{metadata: {name: more}, spec: {cidrs: [10.101.0.0/16]}}`)
	if _, err := cidrs.Create(ctx, more, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	until("one more", ranges("10.100.0.0/16", "10.101.0.0/16", "fd00:100::/112"))
	seen := tables.Snapshot()
	more.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)}
	more.Finalizers = []string{"networking.k8s.io/service-cidr-finalizer"}
	if err := cidrStore(tables, time.Now).Update(more); err != nil {
		t.Fatal(err)
	}
	if tables.Snapshot().Revision() != seen.Revision() {
		t.Error("a range that is being deleted is news")
	}
	if err := cidrs.Delete(ctx, "more", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	until("it is gone", ranges("10.100.0.0/16", "fd00:100::/112"))
}

// A cluster from before there were ServiceCIDRs has none, and nobody waits for them. After its
// upgrade they come.
func TestServiceCIDRsNobodyDefined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := apitest.New(webService(t), parse[networkingv1.ServiceCIDR](t, allRanges))
		var upgraded atomic.Bool
		api.PrependReactor("list", "servicecidrs", func(a k8stesting.Action) (bool, runtime.Object, error) {
			return !upgraded.Load(), nil, apierrors.NewNotFound(a.GetResource().GroupResource(), "")
		})
		tables := start(t, api, Options{ServiceCIDRs: true})
		synctest.Wait()
		s := tables.Snapshot()
		if m, have := s.Missing(), s.ServiceCIDRs(); len(m)+len(have) != 0 {
			t.Fatalf("missing %v, have %v", m, have)
		}
		upgraded.Store(true)
		<-s.Changed()
		if got := tables.Snapshot().ServiceCIDRs(); len(got) != 2 {
			t.Errorf("after the upgrade: %v", got)
		}
	})
}

func TestServiceCIDRLeavesOutWhatIsNone(t *testing.T) {
	got, ok := serviceCIDR(parse[networkingv1.ServiceCIDR](t, `{metadata: {name: a}, spec: {cidrs: [x, 10.0.0.0/33, 10.1.2.3/16]}}`))
	if diff := cmp.Diff(ranges("10.1.0.0/16"), got.ranges, byValue); diff != "" || !ok {
		t.Error(diff)
	}
}
