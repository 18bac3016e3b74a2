package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/zonewise/zonewise/lab/region"
	"github.com/zonewise/zonewise/lab/topology"
)

// NodePort is one way from the host into the lab: what reaches Listen goes to a Service's node
// port at one node.
type NodePort struct {
	Namespace string `json:"namespace"`
	Service   string `json:"service"`
	Protocol  string `json:"protocol"`
	Port      int32  `json:"nodePort"`
	Node      string `json:"node"`           // alias
	IPv6      bool   `json:"ipv6,omitempty"` // the Service has no other family
	Listen    string `json:"listen"`         // address on the host
}

// forwarder keeps a listener on 127.0.0.1 for every node port at every node. The first node's has
// the node port's own number where that is free.
type forwarder struct {
	fabric *region.Fabric
	nodes  []topology.Node
	mu     sync.Mutex
	open   map[NodePort]func() // keyed without Listen
	ports  []NodePort
}

func (f *forwarder) list() []NodePort {
	if f == nil {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.ports)
}

// set opens and closes listeners so that there is one for each wanted port.
func (f *forwarder) set(ctx context.Context, want []NodePort) {
	f.mu.Lock()
	defer f.mu.Unlock()
	wanted := map[NodePort]bool{}
	for _, w := range want {
		wanted[w] = true
	}
	f.ports = slices.DeleteFunc(f.ports, func(p NodePort) bool {
		key := p
		key.Listen = ""
		if wanted[key] {
			return false
		}
		f.open[key]()
		delete(f.open, key)
		return true
	})
	for _, w := range want {
		if _, ok := f.open[w]; ok {
			continue
		}
		listen, stop, err := f.forward(ctx, w)
		if err != nil {
			slog.Warn("node port", "service", w.Namespace+"/"+w.Service, "node", w.Node, "err", err)
			continue
		}
		f.open[w] = stop
		w.Listen = listen
		f.ports = append(f.ports, w)
	}
	slices.SortFunc(f.ports, func(a, b NodePort) int {
		return strings.Compare(fmt.Sprint(a.Namespace, a.Service, a.Port, a.Protocol, a.Node), fmt.Sprint(b.Namespace, b.Service, b.Port, b.Protocol, b.Node))
	})
}

func (f *forwarder) forward(ctx context.Context, p NodePort) (listen string, stop func(), err error) {
	i := slices.IndexFunc(f.nodes, func(n topology.Node) bool { return n.Alias == p.Node })
	address := f.nodes[i].Address
	if p.IPv6 {
		address = f.nodes[i].AddressIPv6
	}
	target := net.JoinHostPort(address.String(), fmt.Sprint(p.Port))
	ports := []int32{0}
	if i == 0 {
		ports = []int32{p.Port, 0}
	}
	ctx, cancel := context.WithCancel(ctx)
	for _, port := range ports {
		listen := fmt.Sprintf("127.0.0.1:%d", port)
		if p.Protocol == string(corev1.ProtocolUDP) {
			socket, e := net.ListenPacket("udp4", listen)
			if err = e; err == nil {
				go forwardUDP(ctx, socket, f.fabric.Thread.NS(), target)
				return socket.LocalAddr().String(), cancel, nil
			}
			continue
		}
		listener, e := net.Listen("tcp4", listen)
		if err = e; err == nil {
			go forwardTCP(ctx, listener, f.fabric.Thread.NS(), target)
			return listener.Addr().String(), cancel, nil
		}
	}
	cancel()
	return "", nil, err
}

// watch follows Services, for their node ports.
func (l *Lab) watch(running context.Context) error {
	client, err := kubernetes.NewForConfig(l.client)
	if err != nil {
		return err
	}
	l.forwards = &forwarder{fabric: l.fabric, nodes: l.topo.Nodes(), open: map[NodePort]func(){}}
	factory := informers.NewSharedInformerFactory(client, 0)
	services := factory.Core().V1().Services()
	changed := make(chan struct{}, 1) // one look sees all changes before it
	note := func(any) {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	if _, err := services.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: note, UpdateFunc: func(_, _ any) { note(nil) }, DeleteFunc: note,
	}); err != nil {
		return err
	}
	factory.Start(running.Done())
	factory.WaitForCacheSync(running.Done())
	go func() {
		for {
			select {
			case <-running.Done():
				return
			case <-changed:
				l.forwards.set(running, nodePorts(services.Informer().GetStore().List(), l.topo.Nodes()))
			}
		}
	}()
	return nil
}

func nodePorts(services []any, nodes []topology.Node) []NodePort {
	var out []NodePort
	for _, o := range services {
		s, ok := o.(*corev1.Service)
		if !ok {
			continue
		}
		for _, p := range s.Spec.Ports {
			if p.NodePort == 0 {
				continue
			}
			for _, n := range nodes {
				out = append(out, NodePort{
					Namespace: s.Namespace, Service: s.Name, Protocol: string(p.Protocol), Port: p.NodePort, Node: n.Alias,
					IPv6: !slices.Contains(s.Spec.IPFamilies, corev1.IPv4Protocol) && len(s.Spec.IPFamilies) > 0,
				})
			}
		}
	}
	return out
}
