package kube

import (
	"context"
	"fmt"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// ConfigurationName is the name of the MutatingWebhookConfiguration.
const ConfigurationName = "zonewise-hints"

// ownerName is the ClusterRole of the chart that the configuration belongs to: when the chart goes, or
// its value controller.hints, the garbage collector takes the configuration away, too.
const ownerName = "zonewise-hints"

// registration makes the API server ask the webhook, and stop.
type registration struct {
	client    kubernetes.Interface
	namespace string
	url       string // instead of the Service; for tests and trials
}

// put makes the API server ask about the slices of those managers, and tells whether that needed a
// change.
func (r registration) put(ctx context.Context, bundle []byte, managers ...string) (changed bool, err error) {
	configurations := r.client.AdmissionregistrationV1().MutatingWebhookConfigurations()
	want := r.configuration(bundle, managers)
	if want.OwnerReferences, err = r.owner(ctx); err != nil {
		return false, err
	}
	have, err := configurations.Get(ctx, ConfigurationName, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		_, err = configurations.Create(ctx, want, metav1.CreateOptions{})
	case err == nil && same(have, want):
		return false, nil
	case err == nil:
		want.ResourceVersion = have.ResourceVersion
		_, err = configurations.Update(ctx, want, metav1.UpdateOptions{})
	}
	if err != nil {
		return false, fmt.Errorf("MutatingWebhookConfiguration %s: %w", ConfigurationName, err)
	}
	return true, nil
}

// whole tells whether the API server asks already as put would have it for all managers.
func (r registration) whole(ctx context.Context, bundle []byte) bool {
	have, err := r.client.AdmissionregistrationV1().MutatingWebhookConfigurations().Get(ctx, ConfigurationName, metav1.GetOptions{})
	if err != nil {
		return false
	}
	want := r.configuration(bundle, []string{managedByStock, managedByProbe})
	want.OwnerReferences = have.OwnerReferences
	return same(have, want)
}

// remove makes the API server stop asking.
func (r registration) remove(ctx context.Context) error {
	err := r.client.AdmissionregistrationV1().MutatingWebhookConfigurations().Delete(ctx, ConfigurationName, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("MutatingWebhookConfiguration %s: %w", ConfigurationName, err)
	}
	return nil
}

func (r registration) owner(ctx context.Context) ([]metav1.OwnerReference, error) {
	role, err := r.client.RbacV1().ClusterRoles().Get(ctx, ownerName, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err): // not installed by the chart: nothing to go with
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("ClusterRole %s: %w", ownerName, err)
	}
	return []metav1.OwnerReference{{APIVersion: "rbac.authorization.k8s.io/v1", Kind: "ClusterRole", Name: role.Name, UID: role.UID}}, nil
}

// configuration is the registration, with every field that the API server would default.
func (r registration) configuration(bundle []byte, managers []string) *admissionregistrationv1.MutatingWebhookConfiguration {
	ignore, equivalent := admissionregistrationv1.Ignore, admissionregistrationv1.Equivalent
	never, none, scope := admissionregistrationv1.NeverReinvocationPolicy, admissionregistrationv1.SideEffectClassNone, admissionregistrationv1.NamespacedScope
	path, port, timeout := Path, int32(443), int32(1)
	client := admissionregistrationv1.WebhookClientConfig{
		CABundle: bundle,
		Service:  &admissionregistrationv1.ServiceReference{Namespace: r.namespace, Name: ServiceName, Path: &path, Port: &port},
	}
	if r.url != "" {
		client.URL, client.Service = &r.url, nil
	}
	return &admissionregistrationv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: ConfigurationName, Labels: map[string]string{"app.kubernetes.io/name": "zonewise"}},
		Webhooks: []admissionregistrationv1.MutatingWebhook{{
			Name:         "hints.zonewise.io",
			ClientConfig: client,
			Rules: []admissionregistrationv1.RuleWithOperations{{
				Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create, admissionregistrationv1.Update},
				Rule: admissionregistrationv1.Rule{
					APIGroups: []string{discoveryv1.GroupName}, APIVersions: []string{"v1"}, Resources: []string{"endpointslices"}, Scope: &scope,
				},
			}},
			FailurePolicy:     &ignore, // endpoints matter more than hints
			MatchPolicy:       &equivalent,
			NamespaceSelector: &metav1.LabelSelector{},
			ObjectSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
				{Key: discoveryv1.LabelManagedBy, Operator: metav1.LabelSelectorOpIn, Values: managers},
			}},
			SideEffects:             &none,
			TimeoutSeconds:          &timeout,
			AdmissionReviewVersions: []string{"v1"},
			ReinvocationPolicy:      &never,
		}},
	}
}

func same(have, want *admissionregistrationv1.MutatingWebhookConfiguration) bool {
	return apiequality.Semantic.DeepDerivative(want.Webhooks, have.Webhooks) && // a newer API may default more
		apiequality.Semantic.DeepEqual(want.OwnerReferences, have.OwnerReferences)
}
