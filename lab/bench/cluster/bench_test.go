//go:build bench

// Package cluster measures a lab: how fast it starts, how fast pods start in it, and how fast the
// product's agents program the kernel, by number of Services. `make bench-lab` runs it, as root.
package cluster

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/utils/ptr"

	"github.com/zonewise/zonewise/lab/cluster"
)

var labName = flag.String("lab", "bench", "name of the labs")

// lab runs the lab's command line, of the programs that `make build` has built.
func lab(b testing.TB, args ...string) {
	b.Helper()
	program, err := filepath.Abs("../../../bin/zonewise-lab")
	if err != nil {
		b.Fatal(err)
	}
	run(b, program, append([]string{args[0], "--name", *labName}, args[1:]...)...)
}

func run(b testing.TB, program string, args ...string) {
	b.Helper()
	cmd := exec.Command(program, args...)
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		b.Fatalf("%s %v: %v", filepath.Base(program), args, err)
	}
}

// up starts the lab for one benchmark and returns a client of its API server.
func up(b *testing.B) *kubernetes.Clientset {
	b.Helper()
	lab(b, "up", "--offline")
	b.Cleanup(func() { lab(b, "down") })
	return clientOf(b)
}

func clientOf(b testing.TB) *kubernetes.Clientset {
	b.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", cluster.PathsOf(*labName).Kubeconfig())
	if err != nil {
		b.Fatal(err)
	}
	config.QPS = -1
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		b.Fatal(err)
	}
	return client
}

// await asks every 10 ms until the answer is yes.
func await(b testing.TB, what string, ask func() (bool, error)) {
	b.Helper()
	deadline := time.NewTimer(5 * time.Minute)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		yes, err := ask()
		if yes {
			return
		}
		if err != nil {
			last = err
		}
		select {
		case <-deadline.C:
			b.Fatalf("waited too long until %s: %v", what, last)
		case <-tick.C:
		}
	}
}

// BenchmarkUp starts and removes a lab of 3 zones with 2 nodes each. Seconds from the beginning
// until each stage is reached, and memory as the sum of proportional set sizes.
func BenchmarkUp(b *testing.B) {
	lab(b, "up", "--offline") // unpacks the images, once on a machine
	lab(b, "down")
	var api, nodes, dns, memory float64
	for b.Loop() {
		lab(b, "up", "--offline")
		s, err := cluster.GetStatus(context.Background(), *labName)
		if err != nil {
			b.Fatal(err)
		}
		lab(b, "down")
		api, nodes, dns, memory = api+s.Boot.API, nodes+s.Boot.Nodes, dns+s.Boot.DNS, memory+float64(s.MemoryBytes)/1e6
	}
	n := float64(b.N)
	b.ReportMetric(api/n, "api-s")
	b.ReportMetric(nodes/n, "nodes-s")
	b.ReportMetric(dns/n, "dns-s")
	b.ReportMetric(memory/n, "MB")
}

// BenchmarkPods scales a Deployment from nothing to 60 pods on 6 nodes until all are ready.
func BenchmarkPods(b *testing.B) {
	const pods = 60
	client := up(b)
	deploy(b, client)
	scaled := func(to int32) {
		scale(b, client, to)
		await(b, fmt.Sprintf("%d pods are ready", to), func() (bool, error) {
			d, err := client.AppsV1().Deployments(metav1.NamespaceDefault).Get(context.Background(), "pods", metav1.GetOptions{})
			return err == nil && d.Status.ObservedGeneration == d.Generation && d.Status.Replicas == to && d.Status.ReadyReplicas == to, err
		})
	}
	var took time.Duration
	for b.Loop() {
		begin := time.Now()
		scaled(pods)
		took += time.Since(begin)
		scaled(0)
	}
	b.ReportMetric(float64(pods*b.N)/took.Seconds(), "pods/s")
}

// deploy makes the Deployment of a benchmark, of no pods at first.
func deploy(b testing.TB, client kubernetes.Interface) {
	b.Helper()
	labels := map[string]string{"app": "pods"}
	_, err := client.AppsV1().Deployments(metav1.NamespaceDefault).Create(context.Background(), &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "pods"},
		Spec: appsv1.DeploymentSpec{
			Replicas: ptr.To(int32(0)), Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{
					TerminationGracePeriodSeconds: ptr.To(int64(0)),
					Containers:                    []corev1.Container{{Name: "echo", Image: "registry.k8s.io/echoserver:1.5"}},
				},
			},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		b.Fatal(err)
	}
}

func scale(b testing.TB, client kubernetes.Interface, to int32) {
	b.Helper()
	patch := fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, to)
	if _, err := client.AppsV1().Deployments(metav1.NamespaceDefault).Patch(context.Background(), "pods", "application/merge-patch+json", patch, metav1.PatchOptions{}); err != nil {
		b.Fatal(err)
	}
}
