package cluster

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/zonewise/zonewise/lab/region/ec2"
	"github.com/zonewise/zonewise/lab/region/ec2/wire"
	"github.com/zonewise/zonewise/lab/topology"
)

// cloud is what a lab has of the cloud's records, and of who serves them.
type cloud struct {
	records  *ec2.Cloud
	launches map[string]ec2.Launch // of the nodes' instances, by alias
	api      *wire.Server
	endpoint string // of the API, on the host

	noMetadata atomic.Bool // nodes get no answer from their metadata service

	mu    sync.Mutex
	calls map[string]*CallCount // by action
}

// CloudStatus is what a lab's cloud is, how its API behaves, and what that was asked since the lab started.
type CloudStatus struct {
	Endpoint    string            `json:"endpoint"`    // of the API, on the host
	VPCEndpoint string            `json:"vpcEndpoint"` // and in the VPC
	Region      string            `json:"region"`
	Instances   map[string]string `json:"instances"` // ids by the nodes' aliases
	Faults      Faults            `json:"faults"`
	Calls       []CallCount       `json:"calls"`
}

// CallCount is how often the API was asked for an action, and how often it refused by which error code.
type CallCount struct {
	Action  string         `json:"action"`
	Calls   int            `json:"calls"`
	Refused map[string]int `json:"refused,omitempty"`
}

// Faults is what goes wrong with the cloud.
type Faults struct {
	Latency     string `json:"latency,omitempty"` // before every answer
	Away        bool   `json:"away,omitempty"`    // connections end without an answer
	Unavailable bool   `json:"unavailable,omitempty"`
	Truncated   bool   `json:"truncated,omitempty"` // answers break off in the middle
	Throttle    bool   `json:"throttle,omitempty"`  // calls are limited, as AWS does by default
	// CallsPerSecond are answered, and the others are throttled; 0 has no limit.
	CallsPerSecond float64  `json:"callsPerSecond,omitempty"`
	Denied         []string `json:"denied,omitempty"`     // actions that the nodes' role may not do
	Revoked        bool     `json:"revoked,omitempty"`    // the keys of the nodes' role are not accepted
	NoMetadata     bool     `json:"noMetadata,omitempty"` // the nodes' metadata service ends connections without an answer
}

// wire is the same for the server.
func (f Faults) wire() (out wire.Faults, err error) {
	out = wire.Faults{Away: f.Away, Unavailable: f.Unavailable, Truncated: f.Truncated, Denied: f.Denied, Revoked: f.Revoked}
	switch {
	case f.CallsPerSecond < 0 || f.Throttle && f.CallsPerSecond > 0:
		return out, errors.New("calls per second: use a number above 0, or the limits that AWS has")
	case f.Throttle:
		out.Describe, out.Mutate = wire.AWSDescribe, wire.AWSMutate
	case f.CallsPerSecond > 0:
		limit := wire.Rate{PerSecond: f.CallsPerSecond, Burst: 1}
		out.Describe, out.Mutate = limit, limit
	}
	for _, action := range f.Denied {
		if !wire.Knows(action) {
			return out, fmt.Errorf("action %q is not one that this cloud knows, such as AssignPrivateIpAddresses", action)
		}
	}
	if f.Latency != "" {
		if out.Latency, err = time.ParseDuration(f.Latency); err != nil || out.Latency < 0 {
			return out, fmt.Errorf("latency %q: use a duration such as 200ms", f.Latency)
		}
	}
	return out, nil
}

func faultsOf(f wire.Faults) Faults {
	out := Faults{Away: f.Away, Unavailable: f.Unavailable, Truncated: f.Truncated, Denied: f.Denied, Revoked: f.Revoked}
	switch f.Mutate {
	case wire.Rate{}:
	case wire.AWSMutate:
		out.Throttle = true
	default:
		out.CallsPerSecond = f.Mutate.PerSecond
	}
	if f.Latency > 0 {
		out.Latency = f.Latency.String()
	}
	return out
}

// count remembers a call.
func (c *cloud) count(call wire.Call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, ok := c.calls[call.Action]
	if !ok {
		n = &CallCount{Action: call.Action, Refused: map[string]int{}}
		c.calls[call.Action] = n
	}
	n.Calls++
	if call.Code != "" {
		n.Refused[call.Code]++
	}
}

func (l *Lab) cloudStatus() (CloudStatus, error) {
	c := l.cloud
	if c == nil {
		return CloudStatus{}, ErrNoCloud
	}
	s := CloudStatus{
		Endpoint: c.endpoint, VPCEndpoint: ec2URL(l.topo), Region: l.topo.Region, Instances: map[string]string{},
		Faults: faultsOf(c.api.Faults()), Calls: []CallCount{},
	}
	s.Faults.NoMetadata = c.noMetadata.Load()
	records := c.records.Records()
	for node := range c.launches {
		if i := records.InstanceOf(node); i != nil {
			s.Instances[node] = i.ID
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, action := range slices.Sorted(maps.Keys(c.calls)) {
		n := *c.calls[action]
		n.Refused = maps.Clone(n.Refused)
		s.Calls = append(s.Calls, n)
	}
	return s, nil
}

// setFaults makes the API behave otherwise from now on.
func (l *Lab) setFaults(r io.Reader) (CloudStatus, error) {
	if l.cloud == nil {
		return CloudStatus{}, ErrNoCloud
	}
	var f Faults
	if err := json.NewDecoder(r).Decode(&f); err != nil {
		return CloudStatus{}, err
	}
	faults, err := f.wire()
	if err != nil {
		return CloudStatus{}, err
	}
	l.cloud.api.Set(faults)
	l.cloud.noMetadata.Store(f.NoMetadata)
	return l.cloudStatus()
}

// makeCloud opens the region's records, has an instance for every node in them, and makes the fabric
// deliver what they say, from now on and for as long as the lab runs. With static addresses there are none.
func (l *Lab) makeCloud(running context.Context) error {
	if !l.topo.HasCloud() {
		return nil
	}
	records, err := ec2.Open(blueprint(l.topo), ec2.Options{
		File: l.paths.Cloud(), AttachTime: l.topo.Cloud.AttachTime, DetachTime: l.topo.Cloud.DetachTime,
	})
	if err != nil {
		return err
	}
	faults := wire.Faults{Latency: l.topo.Cloud.Latency}
	if l.topo.Cloud.Throttle {
		faults.Describe, faults.Mutate = wire.AWSDescribe, wire.AWSMutate
	}
	l.cloud = &cloud{records: records, launches: map[string]ec2.Launch{}, calls: map[string]*CallCount{}}
	l.cloud.api = wire.New(records, wire.Options{Faults: faults, Called: l.cloud.count})
	for _, z := range l.topo.Zones {
		for _, n := range z.Nodes {
			l.cloud.launches[n.Alias] = launch(l.topo, z, n)
			if _, err := records.Launch(l.cloud.launches[n.Alias]); err != nil {
				return err
			}
		}
	}
	if err := l.fabric.Apply(records.Delivery()); err != nil {
		return err
	}
	go l.followCloud(running)
	return l.serveCloud(running)
}

// blueprint is the region as the lab describes it.
func blueprint(t topology.Topology) ec2.Blueprint {
	b := ec2.Blueprint{Name: t.Name, Region: t.Region, VPC: t.VPC, Kept: []netip.Prefix{t.ControlPlane}}
	if t.IPv6 != nil {
		b.IPv6 = t.IPv6.VPC
	}
	for _, z := range t.Zones {
		b.Subnets = append(b.Subnets, ec2.NewSubnet{Zone: z.Name, CIDR: z.Subnet, IPv6: z.SubnetIPv6})
	}
	if !t.PodCIDR.IsValid() {
		return b
	}
	b.More = []netip.Prefix{t.PodCIDR}
	for i, z := range t.Zones {
		b.Subnets = append(b.Subnets, ec2.NewSubnet{Name: fmt.Sprint("PodSubnet", i+1), Zone: z.Name, CIDR: z.PodSubnet, IPv6: z.PodSubnetIPv6})
	}
	return b
}

// eniConfigs tell the product's CNI where each zone's pods have their addresses, in custom networking.
func eniConfigs(t topology.Topology, r *ec2.Records) []unstructured.Unstructured {
	var out []unstructured.Unstructured
	for _, z := range t.Zones {
		for _, s := range r.Subnets {
			if s.CIDR == z.PodSubnet {
				out = append(out, unstructured.Unstructured{Object: map[string]any{
					"apiVersion": "crd.k8s.amazonaws.com/v1alpha1", "kind": "ENIConfig", "metadata": map[string]any{"name": z.Name},
					"spec": map[string]any{"subnet": s.ID},
				}})
			}
		}
	}
	return out
}

// launch is the instance of a node, named and tagged as those of a node group of EKS are.
func launch(t topology.Topology, z topology.Zone, n topology.Node) ec2.Launch {
	out := ec2.Launch{
		Node: n.Alias, Type: n.Instance.Type, Subnet: z.Subnet, DNSName: n.Name, Address: n.Address,
		Tags: ec2.Tags{"Name": t.Name + "-ng1-Node", "eks:cluster-name": t.Name, "kubernetes.io/cluster/" + t.Name: "owned"},
	}
	if n.AddressIPv6.IsValid() {
		out.IPv6 = []netip.Addr{n.AddressIPv6}
	}
	return out
}

// followCloud makes the fabric obey every change of the records.
func (l *Lab) followCloud(running context.Context) {
	changes := l.cloud.records.Changes()
	for {
		select {
		case <-running.Done():
			return
		case <-changes:
		}
		for {
			err := l.fabric.Apply(l.cloud.records.Delivery())
			if err == nil || running.Err() != nil {
				break
			}
			slog.Warn("the network does not follow the cloud's records", "err", err)
			if !pause(running, restartPause) {
				return
			}
		}
	}
}

// serveCloud answers the cloud's API: in the VPC at an address of its own, and on the host.
func (l *Lab) serveCloud(running context.Context) error {
	inside, err := l.listen("tcp", netip.AddrPortFrom(l.topo.EC2, 80).String())
	if err != nil {
		return fmt.Errorf("cloud API: %w", err)
	}
	host, err := l.listenCloud()
	if err != nil {
		_ = inside.Close()
		return err
	}
	serve(running, l.cloud.api, inside, host)
	l.cloud.endpoint = "http://" + host.Addr().String()
	return writePrivate(l.paths.AWS(), awsEnvironment(l.cloud.endpoint, l.topo.Region, l.cloud.records.Records().Credentials))
}

// serve answers at listeners until ctx ends.
func serve(ctx context.Context, handler http.Handler, listeners ...net.Listener) {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	for _, listener := range listeners {
		go func() { _ = server.Serve(listener) }()
	}
}

// ec2URL is the cloud's API in the VPC.
func ec2URL(t topology.Topology) string { return "http://" + t.EC2.String() }

// Variables of the file that says how a lab's cloud is reached, by the names that AWS's clients give them.
const (
	awsEndpoint = "AWS_ENDPOINT_URL"
	awsRegion   = "AWS_DEFAULT_REGION"
	awsKey      = "AWS_ACCESS_KEY_ID"
	awsSecret   = "AWS_SECRET_ACCESS_KEY"
)

func awsEnvironment(endpoint, region string, c ec2.Credentials) string {
	return fmt.Sprintf("%s=%s\n%s=%s\n%s=%s\n%s=%s\n", awsEndpoint, endpoint, awsRegion, region, awsKey, c.AccessKeyID, awsSecret, c.SecretAccessKey)
}

// ErrNoCloud is returned for a lab whose addresses are static: it has no cloud to ask.
var ErrNoCloud = errors.New("has no cloud: its addresses are static")

// AWS returns the environment in which an AWS client speaks with a lab's cloud, and the API's endpoint.
func AWS(name string) (environment []string, endpoint string, err error) {
	p := PathsOf(name)
	c, err := LoadConfig(p)
	switch {
	case err != nil:
		return nil, "", err
	case !c.HasCloud():
		return nil, "", ErrNoCloud
	case !Running(p):
		return nil, "", ErrNotRunning
	}
	data, err := os.ReadFile(p.AWS())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "", ErrNotRunning
	}
	if err != nil {
		return nil, "", err
	}
	for lines := bufio.NewScanner(strings.NewReader(string(data))); lines.Scan(); {
		environment = append(environment, lines.Text())
		if value, ok := strings.CutPrefix(lines.Text(), awsEndpoint+"="); ok {
			endpoint = value
		}
	}
	return environment, endpoint, nil
}

// listenCloud takes a port on 127.0.0.1 for the cloud's API: the last one, where that is free.
func (l *Lab) listenCloud() (net.Listener, error) {
	if data, err := os.ReadFile(l.paths.AWS()); err == nil {
		line, _, _ := strings.Cut(string(data), "\n")
		if last, err := url.Parse(strings.TrimPrefix(line, awsEndpoint+"=")); err == nil && last.Host != "" {
			if listener, err := net.Listen("tcp4", last.Host); err == nil {
				return listener, nil
			}
		}
	}
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("no free port on 127.0.0.1 for the cloud API: %w", err)
	}
	return listener, nil
}
