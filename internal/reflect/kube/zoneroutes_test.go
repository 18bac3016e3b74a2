package kube

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/zonewise/zonewise/api/v1alpha1"
)

// server answers as an API server does for one ZoneRoute, and remembers what it was asked.
func server(t *testing.T, asked *[]string) Clients {
	t.Helper()
	one := v1alpha1.ZoneRoute{
		TypeMeta:   metav1.TypeMeta{APIVersion: "zonewise.io/v1alpha1", Kind: "ZoneRoute"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"},
		Spec:       v1alpha1.ZoneRouteSpec{Mode: "Optimal"},
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*asked = append(*asked, r.Method+" "+r.URL.RequestURI()+" "+r.Header.Get("Content-Type")+" accepts "+r.Header.Get("Accept"))
		w.Header().Set("Content-Type", "application/json")
		var answer any = one
		switch {
		case strings.Contains(r.URL.Path, "/nowhere/"):
			w.WriteHeader(http.StatusNotFound)
			answer = metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Reason: metav1.StatusReasonNotFound, Code: 404}
		case r.URL.Query().Get("watch") != "":
			answer = metav1.WatchEvent{Type: "ADDED", Object: runtime.RawExtension{Object: &one}}
		case strings.HasSuffix(r.URL.Path, "/zoneroutes") && r.Method == http.MethodGet:
			answer = v1alpha1.ZoneRouteList{TypeMeta: metav1.TypeMeta{APIVersion: "zonewise.io/v1alpha1", Kind: "ZoneRouteList"}, Items: []v1alpha1.ZoneRoute{one}}
		}
		if err := json.NewEncoder(w).Encode(answer); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(s.Close)
	// As config makes it: protobuf for what Kubernetes has.
	clients, err := ClientsFor(&rest.Config{Host: s.URL, QPS: -1, ContentConfig: rest.ContentConfig{ContentType: runtime.ContentTypeProtobuf,
		AcceptContentTypes: runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON}})
	if err != nil {
		t.Fatal(err)
	}
	return clients
}

func TestZoneRoutesAreSpokenOfInJSON(t *testing.T) {
	var asked []string
	ctx, routes := t.Context(), server(t, &asked).ZoneRoutes
	shop := routes.In("shop")
	zr, err := shop.Get(ctx, "web", metav1.GetOptions{})
	if err != nil || zr.Spec.Mode != "Optimal" {
		t.Fatal(zr, err)
	}
	list, err := routes.In("").List(ctx, metav1.ListOptions{LabelSelector: "a=b", ResourceVersion: "7"})
	if err != nil || len(list.Items) != 1 || list.Items[0].Name != "web" {
		t.Fatal(list, err)
	}
	w, err := routes.In("").Watch(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	event := <-w.ResultChan()
	w.Stop()
	if got, ok := event.Object.(*v1alpha1.ZoneRoute); !ok || got.Name != "web" {
		t.Fatalf("event %+v", event)
	}
	if _, err := shop.UpdateStatus(ctx, zr, metav1.UpdateOptions{FieldManager: "m"}); err != nil {
		t.Fatal(err)
	}
	if _, err := shop.Create(ctx, zr, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := shop.Patch(ctx, "web", types.MergePatchType, []byte(`{}`), metav1.PatchOptions{}, "status"); err != nil {
		t.Fatal(err)
	}
	if err := shop.Delete(ctx, "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	base := "/apis/zonewise.io/v1alpha1/"
	json := "application/json accepts application/json"
	want := []string{
		"GET " + base + "namespaces/shop/zoneroutes/web  accepts application/json",
		"GET " + base + "zoneroutes?labelSelector=a%3Db&resourceVersion=7  accepts application/json",
		"GET " + base + "zoneroutes?watch=true  accepts application/json",
		"PUT " + base + "namespaces/shop/zoneroutes/web/status?fieldManager=m " + json,
		"POST " + base + "namespaces/shop/zoneroutes " + json,
		"PATCH " + base + "namespaces/shop/zoneroutes/web/status application/merge-patch+json accepts application/json",
		"DELETE " + base + "namespaces/shop/zoneroutes/web " + json,
	}
	if diff := cmp.Diff(want, asked); diff != "" {
		t.Error(diff)
	}
}

// An API server that does not know the kind, and one that has no such object, say so the same way.
func TestNotFoundIsKnownAsSuch(t *testing.T) {
	var asked []string
	if _, err := server(t, &asked).ZoneRoutes.In("nowhere").List(t.Context(), metav1.ListOptions{}); !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
}
