//go:build story

package test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Of all bytes so many are moved by the clients that stay; the others by those that come and go.
const steady = 0.75

// mix starts the clients that stay. What it returns waits for their end, and looks at what they moved.
func (l *lab) mix() (end func()) {
	l.t.Helper()
	tcp, udp := l.targets()
	names := "web,headless,kubernetes.default,no-such-name,web.default.svc.cluster.local."
	clients := l.list("get", "pods", "-l", "app=client", "-o", "name")
	each := steady * *meterBytes / float64(len(clients))
	var (
		all   sync.WaitGroup
		mu    sync.Mutex
		moved float64
	)
	for _, pod := range clients {
		all.Go(func() {
			var problem bytes.Buffer
			cmd := exec.Command(filepath.Join(l.bin, "kubectl"), "--kubeconfig", l.kubeconfig(), "exec", pod, "--", "/lab/bin/load", "mix",
				"-for", meterFor.String(), "-bytes", fmt.Sprintf("%.0f", each), "-tcp", strings.Join(tcp, ","), "-udp", strings.Join(udp, ","), "-names", names)
			cmd.Stderr = &problem
			out, err := cmd.Output()
			var result map[string]struct{ Bytes float64 }
			err = errors.Join(err, json.Unmarshal(out, &result))
			l.t.Logf("%s: %s%s", pod, out, problem.String())
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				l.t.Errorf("%s: %v", pod, err)
			}
			for _, r := range result {
				moved += r.Bytes
			}
		})
	}
	return func() {
		l.t.Helper()
		all.Wait()
		l.t.Logf("the clients that stay moved %.0f bytes", moved)
		if moved < 0.9*steady**meterBytes {
			l.t.Errorf("most of %.0f bytes did not get through", steady**meterBytes)
		}
	}
}

// targets are what clients talk to by TCP and UDP: a Service, its endpoints by name, node ports, pods
// that they know themselves.
func (l *lab) targets() (tcp, udp []string) {
	join := func(hosts []string, port string) (out []string) {
		for _, h := range hosts {
			out = append(out, net.JoinHostPort(h, port))
		}
		return out
	}
	services := join(l.list("get", "service", "web", "-o", "jsonpath={.spec.clusterIPs[*]}"), "80")
	direct := join(l.list("get", "pods", "-l", "app=direct", "-o", "jsonpath={.items[*].status.podIPs[*].ip}"), "8080")
	nodes := join(l.list("get", "nodes", "-l", "topology.kubernetes.io/zone=ap-northeast-2b", "-o", `jsonpath={.items[*].status.addresses[?(@.type=="InternalIP")].address}`), "30080")
	both := slices.Concat(services, services, direct, nodes)
	return append(both, "headless:8080"), both
}

// list is what kubectl prints, by words.
func (l *lab) list(args ...string) []string {
	l.t.Helper()
	out, err := l.kubectl(args...)
	if err != nil || out == "" {
		l.t.Fatalf("kubectl %s: nothing: %v", strings.Join(args, " "), err)
	}
	return strings.Fields(out)
}

// killController ends the controller that leads as the kernel would that is out of memory, and waits
// until it is back.
func (l *lab) killController() error {
	holder, err := l.kubectl("-n", "kube-system", "get", "lease", "zonewise-controller", "-o", "jsonpath={.spec.holderIdentity}")
	if err != nil {
		return err
	}
	restarts := func() (string, error) {
		return l.kubectl("-n", "kube-system", "get", "pod", holder, "-o", "jsonpath={.status.containerStatuses[0].restartCount} {.spec.nodeName}")
	}
	before, err := restarts()
	if err != nil {
		return err
	}
	count, node, _ := strings.Cut(before, " ")
	if _, err := l.run("exec", node, "--", "sh", "-c", `kill -9 $(pgrep -f "^/zonewise controller")`); err != nil {
		return err
	}
	await(l.t, "the controller is back", func() error {
		now, err := restarts()
		if err == nil && strings.HasPrefix(now, count+" ") {
			err = errors.New("it was not started again yet")
		}
		return err
	})
	return nil
}

// otherImage makes an image of the agent that programs otherwise, and returns its archive.
func (l *lab) otherImage() string {
	l.t.Helper()
	program, err := os.ReadFile(filepath.Join(l.bin, "other/zonewise"))
	if err != nil {
		l.t.Fatalf("%v: run `make build-other` first", err)
	}
	layer := archive(l.t.Fatal, file{"zonewise", program})
	config := fmt.Sprintf(`{"architecture": "amd64", "os": "linux", "config": {"Entrypoint": ["/zonewise"]}, "rootfs": {"type": "layers", "diff_ids": ["sha256:%x"]}}`, sha256.Sum256(layer))
	path := filepath.Join(l.t.TempDir(), "other.tar")
	if err := os.WriteFile(path, archive(l.t.Fatal,
		file{"manifest.json", []byte(`[{"Config": "config.json", "RepoTags": ["` + otherAgent + `"], "Layers": ["layer.tar"]}]`)},
		file{"config.json", []byte(config)}, file{"layer.tar", layer}), 0o644); err != nil {
		l.t.Fatal(err)
	}
	return path
}

const otherAgent = "example.com/zonewise:other"

type file struct {
	name string
	body []byte
}

// archive is a tar file.
func archive(fatal func(...any), files ...file) []byte {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, f := range files {
		err := w.WriteHeader(&tar.Header{Name: f.name, Mode: 0o755, Size: int64(len(f.body)), ModTime: time.Unix(0, 0)})
		if err == nil {
			_, err = w.Write(f.body)
		}
		if err != nil {
			fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		fatal(err)
	}
	return out.Bytes()
}

// echoes is the Deployment web of echo servers, spread over what a label of nodes tells apart.
func echoes(replicas int, over string) string {
	return fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: %d
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: %s, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {app: web}}}
      containers:
      - name: web
        image: registry.k8s.io/echoserver:1.5
        # A pod that ends goes on answering until every node knows.
        lifecycle: {preStop: {sleep: {seconds: 2}}}
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
      terminationGracePeriodSeconds: 5
---`, replicas, over)
}

// comers is a Deployment of clients that come and go: each moves so many bytes in a time.
func comers(name string, host bool, bytes float64, in time.Duration) string {
	return fmt.Sprintf(`
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s}
spec:
  replicas: 0
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      hostNetwork: %[2]t
      dnsPolicy: ClusterFirstWithHostNet
      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: topology.kubernetes.io/zone, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {app: %[1]s}}}
      containers:
      - name: %[1]s
        image: nicolaka/netshoot
        command: [/lab/bin/load, mix, -for, %[3]s, -bytes, "%.0[4]f", -tcp, "web:80,headless:8080", -udp, "web:80", -names, "web,headless"]
        volumeMounts: [{name: programs, mountPath: /lab/bin, readOnly: true}]
      volumes: [{name: programs, hostPath: {path: /lab/bin}}]
      terminationGracePeriodSeconds: 2
`, name, host, in, bytes)
}

// idle is a Deployment of pods that do nothing, as many on each node.
func idle(replicas int) string {
	return fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: idle}
spec:
  replicas: %d
  selector: {matchLabels: {app: idle}}
  template:
    metadata: {labels: {app: idle}}
    spec:
      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: idle}}}
      containers:
      - {name: idle, image: "registry.k8s.io/pause:3.10"}
      terminationGracePeriodSeconds: 0
`, replicas)
}

// mixed is who serves and who asks, beside the echoes and those that come and go.
const mixed = `
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  ipFamilyPolicy: RequireDualStack
  selector: {app: web}
  ports:
  - {name: tcp, port: 80, targetPort: 8080, nodePort: 30080}
  - {name: udp, port: 80, targetPort: 8080, nodePort: 30080, protocol: UDP}
---
apiVersion: v1
kind: Service
metadata: {name: headless}
spec: {clusterIP: None, ipFamilyPolicy: RequireDualStack, selector: {app: web}, ports: [{port: 8080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: direct}
spec:
  replicas: 3
  selector: {matchLabels: {app: direct}}
  template:
    metadata: {labels: {app: direct}}
    spec:
      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: topology.kubernetes.io/zone, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: direct}}}
      containers:
      - {name: direct, image: "registry.k8s.io/echoserver:1.5", readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: client}
spec:
  selector: {matchLabels: {app: client}}
  template:
    metadata: {labels: {app: client}}
    spec:
      containers:
      - name: client
        image: nicolaka/netshoot
        command: ["tail", "-f", "/dev/null"]
        volumeMounts: [{name: programs, mountPath: /lab/bin, readOnly: true}]
      volumes: [{name: programs, hostPath: {path: /lab/bin}}]
      terminationGracePeriodSeconds: 0
`
