package trust

import (
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

const (
	// Signer is whom agents ask for a certificate.
	Signer = "zonewise.io/agent"
	// Organization is what all agents' certificates say.
	Organization = "zonewise:agents"
	// agentAccount is the service account of the agents.
	agentAccount = "zonewise-agent"
	// nodeExtra is how the API server tells the node of the pod whose token was used.
	nodeExtra = "authentication.kubernetes.io/node-name"
	// shortest is the shortest life that can be asked for, as everywhere.
	shortest = 10 * time.Minute
	// signers work side by side, for 5,000 agents may ask at once.
	signers = 4
)

// sign answers requests until ctx ends.
func (k *Keys) sign(ctx context.Context) {
	factory := informers.NewSharedInformerFactoryWithOptions(k.Client, 0, informers.WithTweakListOptions(func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector("spec.signerName", Signer).String()
	}))
	requests := factory.Certificates().V1().CertificateSigningRequests()
	queue := workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[string](time.Second, time.Minute))
	add := func(o any) {
		if r, ok := o.(*certificatesv1.CertificateSigningRequest); ok && r.Spec.SignerName == Signer && open(r) {
			queue.Add(r.Name)
		}
	}
	if _, err := requests.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: add, UpdateFunc: func(_, now any) { add(now) }}); err != nil {
		k.Log.Error("certificates: no requests are answered", "err", err) // only an informer that has ended says so
		return
	}
	factory.Start(ctx.Done())
	defer factory.Shutdown()
	stop := context.AfterFunc(ctx, queue.ShutDown)
	defer stop()
	done := make(chan struct{})
	for range signers {
		go func() {
			defer func() { done <- struct{}{} }()
			for {
				name, over := queue.Get()
				if over {
					return
				}
				err := k.answer(ctx, name, requests.Lister().Get)
				queue.Done(name)
				if err == nil {
					queue.Forget(name)
					continue
				}
				if ctx.Err() == nil {
					k.Log.Warn("certificates", "request", name, "err", err)
				}
				queue.AddRateLimited(name)
			}
		}()
	}
	for range signers {
		<-done
	}
}

// open tells whether a request waits for us.
func open(r *certificatesv1.CertificateSigningRequest) bool {
	return len(r.Status.Certificate) == 0 && !has(r, certificatesv1.CertificateDenied) && !has(r, certificatesv1.CertificateFailed)
}

func has(r *certificatesv1.CertificateSigningRequest, kind certificatesv1.RequestConditionType) bool {
	return slices.ContainsFunc(r.Status.Conditions, func(c certificatesv1.CertificateSigningRequestCondition) bool { return c.Type == kind })
}

// answer approves and signs a request, or denies it and says why.
func (k *Keys) answer(ctx context.Context, name string, get func(string) (*certificatesv1.CertificateSigningRequest, error)) error {
	have, err := get(name)
	if apierrors.IsNotFound(err) || err == nil && !open(have) {
		return nil
	}
	if err != nil {
		return err
	}
	a := k.authority()
	if a == nil {
		return fmt.Errorf("the authority is not there yet")
	}
	r := have.DeepCopy()
	all := k.Client.CertificatesV1().CertificateSigningRequests()
	request, why := k.judge(r)
	if why != "" {
		r.Status.Conditions = append(r.Status.Conditions, condition(certificatesv1.CertificateDenied, "NotAnAgent", why))
		k.Log.Warn("certificates: denied", "request", r.Name, "user", r.Spec.Username, "why", why)
		_, err := all.UpdateApproval(ctx, r.Name, r, metav1.UpdateOptions{})
		return gone(err)
	}
	if !has(r, certificatesv1.CertificateApproved) {
		r.Status.Conditions = append(r.Status.Conditions, condition(certificatesv1.CertificateApproved, "Agent", "the agent of node "+request.Subject.CommonName+" asks"))
		if r, err = all.UpdateApproval(ctx, r.Name, r, metav1.UpdateOptions{}); err != nil {
			return gone(err)
		}
	}
	life := agentLife
	if s := r.Spec.ExpirationSeconds; s != nil {
		life = min(max(time.Duration(*s)*time.Second, shortest), agentLife)
	}
	if r.Status.Certificate, err = a.agent(request, life, time.Now()); err != nil {
		return err
	}
	_, err = all.UpdateStatus(ctx, r, metav1.UpdateOptions{})
	return gone(err)
}

// gone leaves out that somebody was quicker: what is there now comes by the watch.
func gone(err error) error {
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return err
}

func condition(kind certificatesv1.RequestConditionType, reason, message string) certificatesv1.CertificateSigningRequestCondition {
	return certificatesv1.CertificateSigningRequestCondition{Type: kind, Status: corev1.ConditionTrue, Reason: reason, Message: message}
}

// judge returns why a request is denied; empty if it is an agent's, for the node that it runs on. Both the account and
// the node are what the API server says of who asks, not what he says himself.
func (k *Keys) judge(r *certificatesv1.CertificateSigningRequest) (*x509.CertificateRequest, string) {
	request, err := readRequest(r.Spec.Request)
	if err != nil {
		return nil, err.Error()
	}
	account := "system:serviceaccount:" + k.Namespace + ":" + agentAccount
	node, given := r.Spec.Extra[nodeExtra], request.Subject
	switch {
	case r.Spec.Username != account:
		return nil, fmt.Sprintf("%s asks, and only %s may", r.Spec.Username, account)
	case len(node) != 1 || node[0] == "":
		return nil, "the token is not bound to a pod, or the API server is too old to tell its node (before 1.32)"
	case given.CommonName != node[0]:
		return nil, fmt.Sprintf("the agent of node %s asks for a certificate of %q", node[0], given.CommonName)
	case !slices.Equal(given.Organization, []string{Organization}):
		return nil, fmt.Sprintf("organization is %q, not %s", given.Organization, Organization)
	case len(request.DNSNames)+len(request.IPAddresses)+len(request.EmailAddresses)+len(request.URIs) > 0:
		return nil, "no names beside the common name are given"
	}
	client := false
	for _, u := range r.Spec.Usages {
		switch u {
		case certificatesv1.UsageClientAuth:
			client = true
		case certificatesv1.UsageDigitalSignature:
		default:
			return nil, fmt.Sprintf("usage %s is not given", u)
		}
	}
	if !client {
		return nil, "usage client auth is missing"
	}
	return request, ""
}
