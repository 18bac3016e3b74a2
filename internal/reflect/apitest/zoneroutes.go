package apitest

import (
	"fmt"
	"reflect"
	"strconv"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/gentype"
	k8stesting "k8s.io/client-go/testing"

	"github.com/zonewise/zonewise/api/v1alpha1"
	"github.com/zonewise/zonewise/internal/reflect/kube"
)

// Routes is a fake of the API's ZoneRoutes. As at a real API server, a status is written apart from
// its spec, the generation counts the spec's changes, a write of what is there already is none, and
// a write of what has changed meanwhile is a conflict.
type Routes struct {
	k8stesting.Fake
	tracker k8stesting.ObjectTracker

	mu      sync.Mutex
	version int64
	absent  bool
}

func newRoutes() *Routes {
	scheme := runtime.NewScheme()
	must(v1alpha1.AddToScheme(scheme))
	r := &Routes{tracker: k8stesting.NewObjectTracker(scheme, serializer.NewCodecFactory(scheme).UniversalDecoder())}
	r.AddReactor("*", "*", k8stesting.ObjectReaction(r.tracker))
	r.PrependReactor("create", v1alpha1.Resource, r.create)
	r.PrependReactor("update", v1alpha1.Resource, r.update)
	r.PrependReactor("*", v1alpha1.Resource, r.undefined)
	return r
}

// In is the client of a namespace.
func (r *Routes) In(namespace string) kube.NamespacedZoneRoutes {
	return gentype.NewFakeClientWithList(&r.Fake, namespace,
		v1alpha1.GroupVersion.WithResource(v1alpha1.Resource), v1alpha1.GroupVersion.WithKind("ZoneRoute"),
		func() *v1alpha1.ZoneRoute { return &v1alpha1.ZoneRoute{} },
		func() *v1alpha1.ZoneRouteList { return &v1alpha1.ZoneRouteList{} },
		func(to, from *v1alpha1.ZoneRouteList) { to.ListMeta = from.ListMeta },
		func(l *v1alpha1.ZoneRouteList) []*v1alpha1.ZoneRoute { return gentype.ToPointerSlice(l.Items) },
		func(l *v1alpha1.ZoneRouteList, items []*v1alpha1.ZoneRoute) {
			l.Items = gentype.FromPointerSlice(items)
		})
}

// Define tells whether the API server knows ZoneRoutes. At first it does.
func (r *Routes) Define(known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.absent = !known
}

// Writes counts the writes that were asked for, by verb: "create", "update", "update status",
// "patch", "delete".
func (r *Routes) Writes() map[string]int {
	out := map[string]int{}
	for _, a := range r.Actions() {
		switch verb := a.GetVerb(); verb {
		case "get", "list", "watch":
		default:
			if sub := a.GetSubresource(); sub != "" {
				verb += " " + sub
			}
			out[verb]++
		}
	}
	return out
}

func (r *Routes) undefined(a k8stesting.Action) (bool, runtime.Object, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.absent {
		return false, nil, nil
	}
	return true, nil, apierrors.NewNotFound(a.GetResource().GroupResource(), "")
}

func (r *Routes) add(zr *v1alpha1.ZoneRoute) error {
	r.stamp(zr)
	return r.tracker.Add(zr)
}

// stamp gives an object that is new what an API server gives it.
func (r *Routes) stamp(zr *v1alpha1.ZoneRoute) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.version++
	zr.ResourceVersion = strconv.FormatInt(r.version, 10)
	zr.Generation = max(1, zr.Generation)
	if zr.UID == "" {
		zr.UID = types.UID(fmt.Sprintf("uid-%d", r.version))
	}
}

func (r *Routes) create(a k8stesting.Action) (bool, runtime.Object, error) {
	zr := a.(k8stesting.CreateAction).GetObject().(*v1alpha1.ZoneRoute).DeepCopy()
	zr.Namespace, zr.Status = a.GetNamespace(), v1alpha1.ZoneRouteStatus{}
	r.stamp(zr)
	if err := r.tracker.Create(a.GetResource(), zr, a.GetNamespace()); err != nil {
		return true, nil, err
	}
	return true, zr.DeepCopy(), nil
}

func (r *Routes) update(a k8stesting.Action) (bool, runtime.Object, error) {
	wanted := a.(k8stesting.UpdateAction).GetObject().(*v1alpha1.ZoneRoute)
	r.mu.Lock()
	defer r.mu.Unlock()
	found, err := r.tracker.Get(a.GetResource(), a.GetNamespace(), wanted.Name)
	if err != nil {
		return true, nil, err
	}
	old := found.(*v1alpha1.ZoneRoute)
	if v := wanted.ResourceVersion; v != "" && v != old.ResourceVersion {
		return true, nil, apierrors.NewConflict(a.GetResource().GroupResource(), wanted.Name, fmt.Errorf("version %s is now %s", v, old.ResourceVersion))
	}
	merged := old.DeepCopy()
	if a.GetSubresource() == "status" {
		merged.Status = *wanted.Status.DeepCopy()
	} else {
		merged.Labels, merged.Annotations, merged.Spec = wanted.Labels, wanted.Annotations, *wanted.Spec.DeepCopy()
		if !reflect.DeepEqual(merged.Spec, old.Spec) {
			merged.Generation++
		}
	}
	if reflect.DeepEqual(merged, old) {
		return true, merged, nil
	}
	r.version++
	merged.ResourceVersion = strconv.FormatInt(r.version, 10)
	if err := r.tracker.Update(a.GetResource(), merged, a.GetNamespace()); err != nil {
		return true, nil, err
	}
	return true, merged.DeepCopy(), nil
}
