//go:build bench

package cluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// BenchmarkStarts starts 30 pods at once on one node whose addresses come from the cloud: soon after the node has booted,
// and again when it has the addresses. ms from when a pod is made until it is Ready: median, 99th percentile, most.
func BenchmarkStarts(b *testing.B) {
	const pods = 30
	file := filepath.Join(b.TempDir(), "lab.yaml")
	if err := os.WriteFile(file, []byte(`cni: zonewise
instanceType: m5.xlarge
zones: [{nodes: 1}]
cloud: {attachTime: 3s, latency: 100ms}
`), 0o600); err != nil {
		b.Fatal(err)
	}
	lab(b, "up", "--offline", "-f", file)
	b.Cleanup(func() { lab(b, "down") })
	client := clientOf(b)
	deploy(b, client)
	for _, state := range []string{"cold", "warm"} {
		b.Run(state, func(b *testing.B) {
			for b.Loop() {
				took := starts(b, client, pods)
				b.ReportMetric(took[len(took)/2], "median-ms")
				b.ReportMetric(took[(len(took)*99+99)/100-1], "p99-ms")
				b.ReportMetric(took[len(took)-1], "most-ms")
			}
			scale(b, client, 0)
			await(b, "all pods are gone", func() (bool, error) {
				left, err := client.CoreV1().Pods(metav1.NamespaceDefault).List(context.Background(), metav1.ListOptions{})
				return err == nil && len(left.Items) == 0, err
			})
		})
	}
}

// starts scales to so many pods, and returns how many ms each took until it was Ready, in order.
func starts(b *testing.B, client kubernetes.Interface, count int) (took []float64) {
	b.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	events, err := client.CoreV1().Pods(metav1.NamespaceDefault).Watch(ctx, metav1.ListOptions{})
	if err != nil {
		b.Fatal(err)
	}
	defer events.Stop()
	scale(b, client, int32(count))
	made, ready := map[types.UID]time.Time{}, map[types.UID]bool{}
	for e := range events.ResultChan() {
		pod, ok := e.Object.(*corev1.Pod)
		if !ok {
			b.Fatal(fmt.Sprint("watch: ", e.Object))
		}
		if made[pod.UID].IsZero() {
			made[pod.UID] = time.Now()
		}
		is := slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
		})
		if is && !ready[pod.UID] {
			ready[pod.UID] = true
			took = append(took, float64(time.Since(made[pod.UID]).Microseconds())/1e3)
		}
		if len(took) == count {
			slices.Sort(took)
			return took
		}
	}
	b.Fatalf("%d of %d pods were ready in time", len(took), count)
	return nil
}
