package dump

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// printed writes a List of Services and their slices as kubectl does.
func printed(w io.Writer, asYAML bool, services, endpoints int) {
	out := bufio.NewWriterSize(w, 1<<20)
	defer func() { out.Flush() }()
	first := true
	write := func(o any) {
		var text []byte
		if asYAML {
			text, _ = yaml.Marshal(o)
			out.WriteString("- " + strings.TrimSuffix(strings.ReplaceAll(string(text), "\n", "\n  "), "  "))
			return
		}
		if text, _ = json.MarshalIndent(o, "        ", "    "); !first {
			out.WriteString(",\n")
		}
		first = false
		out.WriteString("        ")
		out.Write(text)
	}
	if asYAML {
		out.WriteString("apiVersion: v1\nitems:\n")
	} else {
		out.WriteString("{\n    \"apiVersion\": \"v1\",\n    \"items\": [\n")
	}
	for _, n := range []string{"n1", "n2", "n3"} {
		write(corev1.Node{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"}, ObjectMeta: metav1.ObjectMeta{Name: n,
			Labels: map[string]string{corev1.LabelTopologyZone: "zone-" + n}},
			Status: corev1.NodeStatus{Allocatable: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2")}}})
	}
	// One Service stands for all: making each anew would take longer than reading it.
	var one bytes.Buffer
	whole := out
	out = bufio.NewWriter(&one)
	write(corev1.Service{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web-0", UID: "6a4d8a6e-7c7b-4f0c-9d3b-0a2b6c1d2e3f", ResourceVersion: "12345"},
		Spec:       corev1.ServiceSpec{ClusterIP: "10.100.0.7", ClusterIPs: []string{"10.100.0.7"}, Ports: []corev1.ServicePort{{Port: 80}}}})
	write(slice("web-0", endpoints))
	out.Flush()
	out = whole
	for i := range services {
		out.Write(bytes.ReplaceAll(one.Bytes(), []byte("web-0"), fmt.Appendf(nil, "web-%d", i)))
	}
	if asYAML {
		out.WriteString("kind: List\nmetadata:\n  resourceVersion: \"\"\n")
	} else {
		out.WriteString("\n    ],\n    \"kind\": \"List\",\n    \"metadata\": {\n        \"resourceVersion\": \"\"\n    }\n}\n")
	}
}

func slice(service string, endpoints int) discoveryv1.EndpointSlice {
	out := discoveryv1.EndpointSlice{TypeMeta: metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"},
		ObjectMeta:  metav1.ObjectMeta{Namespace: "shop", Name: service + "-x7k2p", Labels: map[string]string{discoveryv1.LabelServiceName: service}},
		AddressType: discoveryv1.AddressTypeIPv4}
	yes, no, port := true, false, int32(8080)
	out.Ports = []discoveryv1.EndpointPort{{Port: &port}}
	for e := range endpoints {
		node := fmt.Sprintf("n%d", e%3+1)
		zone := "zone-" + node
		out.Endpoints = append(out.Endpoints, discoveryv1.Endpoint{Addresses: []string{fmt.Sprintf("10.0.0.%d", e)},
			Conditions: discoveryv1.EndpointConditions{Ready: &yes, Serving: &yes, Terminating: &no}, NodeName: &node, Zone: &zone,
			TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: "shop", Name: fmt.Sprintf("%s-5d4f6c7b8-%05d", service, e),
				UID: "6a4d8a6e-7c7b-4f0c-9d3b-0a2b6c1d2e3f"}})
	}
	return out
}

// As much as a cluster with 10,000 Services of 50 endpoints has.
func BenchmarkRead(b *testing.B) {
	for _, format := range []string{"json", "yaml"} {
		for _, services := range []int{1000, 10000} {
			b.Run(fmt.Sprintf("%s/%d×50", format, services), func(b *testing.B) {
				for b.Loop() {
					var before, after runtime.MemStats
					runtime.GC()
					runtime.ReadMemStats(&before)
					started := cpu(b)
					r, w := io.Pipe()
					counted := &counter{w: w}
					go func() { printed(counted, format == "yaml", services, 50); w.Close() }()
					d, err := Read(r)
					if err != nil || len(d.Slices) != services || len(d.Notes) > 0 {
						b.Fatal(err, len(d.Slices), d.Notes[:min(3, len(d.Notes))])
					}
					b.ReportMetric(cpu(b)-started, "CPU-s")
					runtime.GC()
					runtime.ReadMemStats(&after)
					b.SetBytes(counted.n)
					b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/1e6, "MB-kept")
					b.ReportMetric(float64(after.HeapSys)/1e6, "MB-heap")
					runtime.KeepAlive(d)
				}
			})
		}
	}
}

// cpu is what this process has used so far, in seconds: on a busy machine the clock tells little.
func cpu(b *testing.B) float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) { c.n += int64(len(p)); return c.w.Write(p) }
