package kube

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/gentype"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/zonewise/zonewise/api/v1alpha1"
)

// Clients speak to one API server.
type Clients struct {
	kubernetes.Interface
	ZoneRoutes ZoneRoutes
}

// ZoneRoutes is the client of our own objects.
type ZoneRoutes interface {
	In(namespace string) NamespacedZoneRoutes // empty: list and watch all namespaces
}

// NamespacedZoneRoutes are the ZoneRoutes of one namespace.
type NamespacedZoneRoutes interface {
	Get(ctx context.Context, name string, o metav1.GetOptions) (*v1alpha1.ZoneRoute, error)
	List(ctx context.Context, o metav1.ListOptions) (*v1alpha1.ZoneRouteList, error)
	Watch(ctx context.Context, o metav1.ListOptions) (watch.Interface, error)
	Create(ctx context.Context, zr *v1alpha1.ZoneRoute, o metav1.CreateOptions) (*v1alpha1.ZoneRoute, error)
	Update(ctx context.Context, zr *v1alpha1.ZoneRoute, o metav1.UpdateOptions) (*v1alpha1.ZoneRoute, error)
	UpdateStatus(ctx context.Context, zr *v1alpha1.ZoneRoute, o metav1.UpdateOptions) (*v1alpha1.ZoneRoute, error)
	Patch(ctx context.Context, name string, pt types.PatchType, data []byte, o metav1.PatchOptions, subresources ...string) (*v1alpha1.ZoneRoute, error)
	Delete(ctx context.Context, name string, o metav1.DeleteOptions) error
}

// Config returns how to reach the API server, for what goes beyond clients: port-forwards, say.
func Config(o Options) (*rest.Config, error) {
	c, err := config(o)
	if err != nil {
		return nil, fmt.Errorf("api server: %w", err)
	}
	return c, nil
}

// NewClients returns clients as Client does: one for what Kubernetes has, one for what we have.
func NewClients(o Options) (Clients, error) {
	c, err := config(o)
	if err != nil {
		return Clients{}, fmt.Errorf("api server: %w", err)
	}
	clients, err := ClientsFor(c)
	if err != nil {
		return Clients{}, fmt.Errorf("api server %s: %w", c.Host, err)
	}
	return clients, nil
}

// ClientsFor makes clients of a configuration that comes from elsewhere: the flags of kubectl.
func ClientsFor(c *rest.Config) (Clients, error) {
	own := rest.CopyConfig(c)
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return Clients{}, err
	}
	// What a CustomResourceDefinition defines has no protobuf.
	own.ContentType, own.AcceptContentTypes = runtime.ContentTypeJSON, runtime.ContentTypeJSON
	own.GroupVersion, own.APIPath = &v1alpha1.GroupVersion, "/apis"
	own.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	if own.UserAgent == "" {
		own.UserAgent = rest.DefaultKubernetesUserAgent()
	}
	// Both share connections.
	http, err := rest.HTTPClientFor(c)
	if err != nil {
		return Clients{}, err
	}
	kubernetes, err := kubernetes.NewForConfigAndClient(c, http)
	if err != nil {
		return Clients{}, err
	}
	routes, err := rest.RESTClientForConfigAndClient(own, http)
	if err != nil {
		return Clients{}, err
	}
	return Clients{Interface: kubernetes, ZoneRoutes: zoneRoutes{routes, runtime.NewParameterCodec(scheme)}}, nil
}

type zoneRoutes struct {
	rest   rest.Interface
	params runtime.ParameterCodec
}

func (z zoneRoutes) In(namespace string) NamespacedZoneRoutes {
	return gentype.NewClientWithList(v1alpha1.Resource, z.rest, z.params, namespace,
		func() *v1alpha1.ZoneRoute { return &v1alpha1.ZoneRoute{} },
		func() *v1alpha1.ZoneRouteList { return &v1alpha1.ZoneRouteList{} })
}
