package cluster

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/zonewise/zonewise/lab/machine"
	"github.com/zonewise/zonewise/lab/region"
	"github.com/zonewise/zonewise/lab/topology"
)

// StatusSchema versions Status as JSON: fields are only ever added.
const StatusSchema = "zonewise.lab/v1"

// Status of a running lab.
type Status struct {
	Schema      string            `json:"schema"`
	Name        string            `json:"name"`
	Kubeconfig  string            `json:"kubeconfig"`
	API         string            `json:"api"` // as seen from the host
	Version     string            `json:"version"`
	Proxy       string            `json:"proxy"`
	CNI         string            `json:"cni"`
	IPFamilies  []string          `json:"ipFamilies"`
	Started     time.Time         `json:"started"`
	Zones       []ZoneStatus      `json:"zones"`
	Boot        BootStatus        `json:"boot"`
	MemoryBytes uint64            `json:"memoryBytes"` // proportional set size of every process
	Latency     string            `json:"crossZoneLatency"`
	CrossZone   []region.Crossing `json:"crossZone"`
	CrossPods   uint64            `json:"crossZonePodBytes"` // of these bytes, those from pods to pods
	RegionNS    string            `json:"regionNetNS"`       // path through which the VPC's network namespace can be entered
	Traffic     []region.Crossing `json:"traffic"`           // crossZone, and what stayed in its zone
	NodePorts   []NodePort        `json:"nodePorts"`
	Dropped     []region.Dropped  `json:"dropped"`         // by the fabric's source check
	Cloud       *CloudStatus      `json:"cloud,omitempty"` // none with static addresses
}

// ZoneStatus is one zone of a Status.
type ZoneStatus struct {
	Name   string       `json:"name"`
	Subnet string       `json:"subnet"`
	IPv6   string       `json:"subnetIPv6,omitempty"`
	Nodes  []NodeStatus `json:"nodes"`
}

// NodeStatus is one node of a Status.
type NodeStatus struct {
	Name         string `json:"name"`
	Alias        string `json:"alias"`
	Address      string `json:"address"`
	IPv6         string `json:"addressIPv6,omitempty"`
	InstanceType string `json:"instanceType"`
	MaxPods      int    `json:"maxPods"`
	Power        string `json:"power,omitempty"` // stopped or terminated, where the cloud was asked for that
	PID          int    `json:"pid"`             // of the node's first process, through which it can be entered; 0 while the node is down
}

// BootStatus tells how long each stage of the last start took, in seconds from its beginning.
type BootStatus struct {
	API   float64 `json:"api"`
	Nodes float64 `json:"nodes"`
	DNS   float64 `json:"dns"` // 0 without a CNI plugin: nobody waits for it
}

func (l *Lab) status() (Status, error) {
	s := Status{
		Schema: StatusSchema, Name: l.topo.Name, Kubeconfig: l.paths.Kubeconfig(), Version: l.version, Proxy: l.topo.Proxy, CNI: l.topo.CNI,
		API: "https://" + l.apiAddress, IPFamilies: l.topo.Families(), Started: l.started.UTC().Truncate(time.Second),
		Boot:     BootStatus{API: l.boot.API.Seconds(), Nodes: l.boot.Nodes.Seconds(), DNS: l.boot.DNS.Seconds()},
		RegionNS: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), l.fabric.Thread.NS().Fd()),
		Latency:  l.fabric.Latency(), NodePorts: l.forwards.list(),
	}
	s.Zones = zoneStatus(l.topo, l.pids())
	for _, z := range s.Zones {
		for i, n := range z.Nodes {
			node, _ := l.topo.Node(n.Alias)
			z.Nodes[i].Power = l.powerOf(node).missing()
		}
	}
	var err error
	if s.Traffic, err = l.fabric.Crossings(); err != nil {
		return s, err
	}
	for _, c := range s.Traffic {
		if c.From != c.To {
			s.CrossZone = append(s.CrossZone, c)
		}
	}
	if s.Dropped, err = l.fabric.Dropped(); err != nil {
		return s, err
	}
	if l.cloud != nil {
		c, err := l.cloudStatus()
		if err != nil {
			return s, err
		}
		s.Cloud = &c
	}
	if s.CrossPods, err = l.fabric.BetweenPods(); err != nil {
		return s, err
	}
	s.MemoryBytes, err = memory(l.paths.Cgroup())
	return s, err
}

func zoneStatus(t topology.Topology, pids map[string]int) []ZoneStatus {
	var out []ZoneStatus
	for _, z := range t.Zones {
		zone := ZoneStatus{Name: z.Name, Subnet: z.Subnet.String()}
		if t.IPv6 != nil {
			zone.IPv6 = z.SubnetIPv6.String()
		}
		for _, n := range z.Nodes {
			node := NodeStatus{
				Name: n.Name, Alias: n.Alias, Address: n.Address.String(), InstanceType: n.Instance.Type,
				MaxPods: n.MaxPods, PID: pids[n.Alias],
			}
			if t.IPv6 != nil {
				node.IPv6 = n.AddressIPv6.String()
			}
			zone.Nodes = append(zone.Nodes, node)
		}
		out = append(out, zone)
	}
	return out
}

// memory adds up what the processes of a cgroup use: shared pages are split between their users.
func memory(cgroup string) (uint64, error) {
	pids, err := machine.Processes(cgroup)
	if err != nil {
		return 0, err
	}
	var total uint64
	for _, pid := range pids {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			continue // ended meanwhile
		}
		for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
			var kib uint64
			if n, _ := fmt.Sscanf(lines.Text(), "Pss: %d kB", &kib); n == 1 {
				total += kib << 10
				break
			}
		}
	}
	return total, nil
}

// serve opens the lab's control socket, and keeps NodePorts and hints on images up to date.
func (l *Lab) serve(running context.Context) error {
	if err := l.watch(running); err != nil {
		return err
	}
	_ = os.Remove(l.paths.Socket())
	listener, err := net.Listen("unix", l.paths.Socket())
	if err != nil {
		return err
	}
	if err := os.Chmod(l.paths.Socket(), 0o600); err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, func() (any, error) { return l.status() })
	})
	mux.HandleFunc("POST /v1/images", func(w http.ResponseWriter, r *http.Request) {
		answer(w, func() (any, error) { return l.load(r.Context(), r.URL.Query().Get("path")) })
	})
	mux.HandleFunc("POST /v1/cloud/faults", func(w http.ResponseWriter, r *http.Request) {
		answer(w, func() (any, error) { return l.setFaults(r.Body) })
	})
	mux.HandleFunc("POST /v1/nodes", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, func() (any, error) { return l.restore() })
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(running, func() { _ = server.Close() })
	go func() { _ = server.Serve(listener) }()
	return nil
}

func answer(w http.ResponseWriter, do func() (any, error)) {
	value, err := do()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(value)
}

// ErrNotRunning is returned for a lab that exists but has no processes.
var ErrNotRunning = errors.New("not running")

// GetStatus asks a running lab.
func GetStatus(ctx context.Context, name string) (Status, error) {
	var s Status
	return s, call(ctx, name, http.MethodGet, "/v1/status", nil, &s)
}

// LoadImage gives a running lab one more image archive, by path.
func LoadImage(ctx context.Context, name, path string) (names []string, err error) {
	return names, call(ctx, name, http.MethodPost, "/v1/images?path="+url.QueryEscape(path), nil, &names)
}

// Restore makes a running lab start nodes that its cloud has stopped or terminated; it returns their aliases.
func Restore(ctx context.Context, name string) (nodes []string, err error) {
	return nodes, call(ctx, name, http.MethodPost, "/v1/nodes", nil, &nodes)
}

// SetFaults makes the API of a running lab's cloud behave otherwise.
func SetFaults(ctx context.Context, name string, f Faults) error {
	c, err := LoadConfig(PathsOf(name))
	if err != nil {
		return err
	}
	if !c.HasCloud() {
		return ErrNoCloud
	}
	var s CloudStatus
	return call(ctx, name, http.MethodPost, "/v1/cloud/faults", f, &s)
}

func call(ctx context.Context, name, method, path string, body, into any) error {
	p := PathsOf(name)
	if _, err := LoadConfig(p); err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", p.Socket())
	}}}
	data, err := json.Marshal(body)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://lab"+path, bytes.NewReader(data))
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) && op.Op == "dial" && !errors.Is(err, fs.ErrPermission) {
			return ErrNotRunning
		}
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		var text bytes.Buffer
		_, _ = text.ReadFrom(response.Body)
		return errors.New(strings.TrimSpace(text.String()))
	}
	return json.NewDecoder(response.Body).Decode(into)
}
