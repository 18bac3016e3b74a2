package controller

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/zonewise/zonewise/internal/controller/metering/trust"
	"github.com/zonewise/zonewise/internal/controller/routes"
	hintskube "github.com/zonewise/zonewise/internal/hints/kube"
	"github.com/zonewise/zonewise/internal/reflect/kube"
)

// Names in the chart.
const (
	deploymentName = "zonewise-controller"
	podSelector    = "app.kubernetes.io/name=zonewise,app.kubernetes.io/component=controller"
)

const (
	// stopPatience is how long the controller's pods are waited for. One on a node that is dead stays
	// for good, and does nothing.
	stopPatience = time.Minute
	stopPoll     = 500 * time.Millisecond
)

// SweepConfig is what Sweep needs.
type SweepConfig struct {
	Client    kubernetes.Interface
	Routes    kube.ZoneRoutes
	Namespace string // of the controller
	Hints     bool   // it put hints on slices
	Meter     bool   // it had a meter
	Log       *slog.Logger
}

// Sweep stops the controller and takes away what it keeps in the cluster: hints and their webhook,
// the ZoneRoutes that it made itself, its certificates and its Lease. What is gone already is no error.
func Sweep(ctx context.Context, c SweepConfig) error {
	if err := stop(ctx, c); err != nil {
		return err
	}
	slices := 0
	if c.Hints {
		n, err := hintskube.Leave(ctx, c.Client, c.Namespace)
		if err != nil {
			return fmt.Errorf("hints: %w", err)
		}
		slices = n
	}
	made, err := routes.Sweep(ctx, c.Routes)
	if err != nil {
		return err
	}
	if c.Meter {
		if err := trust.Sweep(ctx, c.Client, c.Namespace); err != nil {
			return err
		}
	}
	err = c.Client.CoordinationV1().Leases(c.Namespace).Delete(ctx, Lease, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("lease %s: %w", Lease, err)
	}
	c.Log.Info("swept", "slices", slices, "zoneroutes", made)
	return nil
}

// stop scales the controller to nothing and waits until its pods are gone.
func stop(ctx context.Context, c SweepConfig) error {
	deployments := c.Client.AppsV1().Deployments(c.Namespace)
	scale, err := deployments.GetScale(ctx, deploymentName, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
	case err != nil:
		return fmt.Errorf("deployment %s: %w", deploymentName, err)
	case scale.Spec.Replicas > 0:
		scale.Spec.Replicas = 0
		if _, err := deployments.UpdateScale(ctx, deploymentName, scale, metav1.UpdateOptions{}); err != nil {
			return fmt.Errorf("deployment %s: %w", deploymentName, err)
		}
	}
	over := time.NewTimer(stopPatience)
	defer over.Stop()
	tick := time.NewTicker(stopPoll)
	defer tick.Stop()
	for {
		pods, err := c.Client.CoreV1().Pods(c.Namespace).List(ctx, metav1.ListOptions{LabelSelector: podSelector})
		if err != nil {
			return fmt.Errorf("pods: %w", err)
		}
		if len(pods.Items) == 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-over.C:
			c.Log.Warn("a pod of the controller does not end; sweeping all the same", "pod", pods.Items[0].Name)
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
