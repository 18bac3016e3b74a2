package apiserver

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/zonewise/zonewise/internal/reflect/kube"
)

const patience = 20 * time.Second

func service(i int, labels map[string]string) *corev1.Service {
	ip := netip.AddrFrom4([4]byte{10, 100, byte(i >> 8), byte(i)}).String()
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("s%d", i), Labels: labels},
		Spec: corev1.ServiceSpec{ClusterIP: ip, ClusterIPs: []string{ip}}}
}

// start serves objects on this machine's loopback, and returns a client that speaks the encoding.
func start(t *testing.T, contentType string, o Options, objects ...apiruntime.Object) (*Server, kube.Clients) {
	t.Helper()
	snapshot, err := Prepare(objects...)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := New(snapshot, o)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	client, err := kube.ClientsFor(&rest.Config{Host: "http://" + l.Addr().String(), QPS: -1,
		ContentConfig: rest.ContentConfig{ContentType: contentType, AcceptContentTypes: contentType}})
	if err != nil {
		t.Fatal(err)
	}
	return s, client
}

// both runs a test in each encoding.
func both(t *testing.T, f func(t *testing.T, contentType string)) {
	for m := range medias {
		t.Run(m.contentType(), func(t *testing.T) { f(t, m.contentType()) })
	}
}

func TestListsAndGets(t *testing.T) {
	both(t, func(t *testing.T, contentType string) {
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}
		proxied := map[string]string{"service.kubernetes.io/service-proxy-name": "other"}
		_, client := start(t, contentType, Options{}, node, service(1, nil), service(2, proxied),
			&networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.100.0.0/14"}}})
		ctx := t.Context()
		all, err := client.CoreV1().Services("").List(ctx, metav1.ListOptions{})
		if err != nil || len(all.Items) != 2 || all.ResourceVersion != "1" || all.Items[0].Spec.ClusterIP != "10.100.0.1" {
			t.Fatalf("%+v, %v", all, err)
		}
		ours, err := client.CoreV1().Services("default").List(ctx, metav1.ListOptions{LabelSelector: "!service.kubernetes.io/service-proxy-name", FieldSelector: "spec.clusterIP!=None"})
		if err != nil || len(ours.Items) != 1 || ours.Items[0].Name != "s1" {
			t.Errorf("%+v, %v", ours, err)
		}
		if l, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=n2"}); err != nil || len(l.Items) != 0 {
			t.Errorf("%+v, %v", l, err)
		}
		if n, err := client.CoreV1().Nodes().Get(ctx, "n1", metav1.GetOptions{}); err != nil || n.Name != "n1" {
			t.Errorf("%+v, %v", n, err)
		}
		if _, err := client.CoreV1().Nodes().Get(ctx, "n2", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("a node that is not there: %v", err)
		}
		if _, err := client.ZoneRoutes.In("").List(ctx, metav1.ListOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("zoneroutes: %v", err)
		}
		if l, err := client.NetworkingV1().ServiceCIDRs().List(ctx, metav1.ListOptions{}); err != nil || len(l.Items) != 1 {
			t.Errorf("%+v, %v", l, err)
		}
		event := &corev1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "e"}, Reason: "Birth"}
		if e, err := client.CoreV1().Events("default").Create(ctx, event, metav1.CreateOptions{}); err != nil || e.Reason != "Birth" {
			t.Errorf("%+v, %v", e, err)
		}
	})
}

// TestInformers follows the objects as kube-proxy does: initial events up to their end, then changes.
// Clients that ask what there is before they use it find every resource, and its kind.
func TestDiscovery(t *testing.T) {
	_, client := start(t, "application/json", Options{})
	version, err := client.Discovery().ServerVersion()
	if err != nil || version.Major != "1" {
		t.Errorf("version: %v, %v", version, err)
	}
	_, all, err := client.Discovery().ServerGroupsAndResources()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, group := range all {
		for _, r := range group.APIResources {
			found[group.GroupVersion+"/"+r.Name] = true
			if want := r.Kind == "Pod" || r.Kind == "Service" || r.Kind == "EndpointSlice"; r.Namespaced != want {
				t.Errorf("%s: namespaced: %v", r.Kind, r.Namespaced)
			}
		}
	}
	for r := range lists {
		if !found[string(r)] {
			t.Errorf("no %s among %v", r, found)
		}
	}
}

func TestInformers(t *testing.T) {
	both(t, func(t *testing.T, contentType string) {
		written := make(chan Written, 8)
		s, client := start(t, contentType, Options{Written: func(w Written) { written <- w }}, service(1, nil), service(2, nil))
		events := make(chan string, 8)
		stop := follow(t, client, events)
		defer stop()
		expect(t, events, "+s1 1", "+s2 1")
		if v, err := s.Set(service(2, nil)); err != nil || v != 2 {
			t.Fatal(v, err)
		}
		expect(t, events, "~s2 2")
		if w := <-written; w.Resource != "v1/services" || w.Name != "s2" || w.Version != 2 || time.Since(w.At) > patience {
			t.Errorf("%+v", w)
		}
		if _, err := s.Set(service(3, nil)); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Delete(service(1, nil)); err != nil {
			t.Fatal(err)
		}
		expect(t, events, "+s3 3", "-s1 4")
		if v, err := s.Delete(service(9, nil)); err != nil || v != 4 {
			t.Errorf("deleted what is not there: %d, %v", v, err)
		}
	})
}

func follow(t *testing.T, client kubernetes.Interface, events chan<- string) (stop func()) {
	t.Helper()
	factory := informers.NewSharedInformerFactory(client, 0)
	tell := func(sign string) func(any) {
		return func(o any) {
			svc := o.(*corev1.Service)
			events <- fmt.Sprint(sign, svc.Name, " ", svc.ResourceVersion)
		}
	}
	_, err := factory.Core().V1().Services().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: tell("+"), UpdateFunc: func(_, o any) { tell("~")(o) }, DeleteFunc: tell("-")})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	factory.StartWithContext(ctx)
	for kind, ok := range factory.WaitForCacheSync(ctx.Done()) {
		if !ok {
			t.Fatalf("%v: never synced", kind)
		}
	}
	return func() { cancel(); factory.Shutdown() }
}

func expect(t *testing.T, events <-chan string, want ...string) {
	t.Helper()
	for _, w := range want {
		select {
		case got := <-events:
			if got != w {
				t.Errorf("event %q, want %q", got, w)
			}
		case <-time.After(patience):
			t.Fatalf("no event; want %q", w)
		}
	}
}

// TestWatchFrom begins where a client was before its connection broke, or too long ago.
func TestWatchFrom(t *testing.T) {
	s, client := start(t, protobuf.contentType(), Options{}, service(1, nil))
	for range 3 {
		if _, err := s.Set(service(1, nil)); err != nil {
			t.Fatal(err)
		}
	}
	next := func(version string) (string, error) {
		w, err := client.CoreV1().Services("").Watch(t.Context(), metav1.ListOptions{ResourceVersion: version})
		if err != nil {
			return "", err
		}
		defer w.Stop()
		e := <-w.ResultChan()
		if svc, ok := e.Object.(*corev1.Service); ok {
			return string(e.Type) + " " + svc.ResourceVersion, nil
		}
		return string(e.Type), apierrors.FromObject(e.Object)
	}
	for version, want := range map[string]string{"": "ADDED 4", "1": "MODIFIED 2", "3": "MODIFIED 4"} {
		if got, err := next(version); err != nil || got != want {
			t.Errorf("from %q: %q, %v, want %q", version, got, err, want)
		}
	}
	s.tables[services].forgotten = 2
	if got, err := next("1"); got != "ERROR" || !apierrors.IsResourceExpired(err) {
		t.Errorf("too long ago: %q, %v", got, err)
	}
}

// TestWatchEnds after the time that the client gave.
func TestWatchEnds(t *testing.T) {
	_, client := start(t, protobuf.contentType(), Options{})
	second := int64(1)
	w, err := client.DiscoveryV1().EndpointSlices("").Watch(t.Context(), metav1.ListOptions{ResourceVersion: "1", TimeoutSeconds: &second})
	if err != nil {
		t.Fatal(err)
	}
	select {
	case e, more := <-w.ResultChan():
		if more {
			t.Errorf("%+v", e)
		}
	case <-time.After(patience):
		t.Error("still there")
	}
}

func TestForgets(t *testing.T) {
	tab := newTable(nil)
	for i := range 2*kept + 1 {
		tab.put(&event{key: "one", version: uint64(first + 1 + i), kind: "MODIFIED"})
	}
	if _, _, known := tab.since(first); known {
		t.Error("the first is still known")
	}
	if events, _, known := tab.since(tab.version - kept); !known || len(events) != kept {
		t.Errorf("%d events, %t", len(events), known)
	}
	if now, v := tab.all(); len(now) != 1 || v != tab.version || now[0].kind != "ADDED" {
		t.Errorf("%d objects", len(now))
	}
}
