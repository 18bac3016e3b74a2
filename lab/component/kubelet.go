package component

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

	cadvisorapi "github.com/google/cadvisor/info/v1"
	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/component-base/logs"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/cmd/kubelet/app"
	"k8s.io/kubernetes/cmd/kubelet/app/options"
	"k8s.io/kubernetes/pkg/kubelet/apis/config"
	"k8s.io/kubernetes/pkg/kubelet/cadvisor"
)

// KubeletSpec is what differs from node to node.
type KubeletSpec struct {
	Node       string
	Addresses  []string // one of each IP family
	Labels     map[string]string
	ProviderID string
	ClusterDNS string
	MaxPods    int
	CPUs       int
	MemoryMiB  int
	// Files, as the kubelet's process sees them.
	Kubeconfig, ClientCA, ServingCert, ServingKey string
}

const runtimeEndpoint = "unix:///run/containerd/containerd.sock"

// runKubelet runs the real kubelet with the settings that a machine in namespaces needs, on hosts
// with cgroup v1 or v2, with or without CAP_SYS_RESOURCE. Only the size of the machine is made up.
func runKubelet(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("want a spec file, not %q", args)
	}
	data, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	var spec KubeletSpec
	if err := json.Unmarshal(data, &spec); err != nil {
		return fmt.Errorf("%s: %w", args[0], err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	logs.InitLogs()
	server, err := options.NewKubeletServer()
	if err != nil {
		return err
	}
	spec.apply(server)
	if err := options.ValidateKubeletServer(server); err != nil {
		return err
	}
	deps, err := app.UnsecuredDependencies(ctx, server, utilfeature.DefaultFeatureGate)
	if err != nil {
		return err
	}
	real, err := cadvisor.New(klog.FromContext(ctx), cadvisor.NewImageFsInfoProvider(runtimeEndpoint), server.RootDirectory,
		[]string{"/"}, cadvisor.UsingLegacyCadvisorStats(runtimeEndpoint), server.LocalStorageCapacityIsolation)
	if err != nil {
		return err
	}
	deps.CAdvisorInterface = machineInfo{real, spec}
	return app.Run(ctx, server, deps, utilfeature.DefaultFeatureGate)
}

func (spec KubeletSpec) apply(s *options.KubeletServer) {
	s.KubeConfig = spec.Kubeconfig
	s.HostnameOverride = spec.Node
	s.NodeIP = strings.Join(spec.Addresses, ",")
	s.NodeLabels = spec.Labels
	s.ContainerRuntimeEndpoint = runtimeEndpoint
	s.ImageServiceEndpoint = runtimeEndpoint
	s.ProviderID = spec.ProviderID
	s.MaxPods = int32(spec.MaxPods)
	s.ClusterDomain = "cluster.local"
	s.ClusterDNS = []string{spec.ClusterDNS}
	s.ResolverConfig = "/etc/resolv.conf"
	s.TLSCertFile, s.TLSPrivateKeyFile = spec.ServingCert, spec.ServingKey
	s.Authentication = config.KubeletAuthentication{
		X509:    config.KubeletX509Authentication{ClientCAFile: spec.ClientCA},
		Webhook: config.KubeletWebhookAuthentication{Enabled: true, CacheTTL: metav1.Duration{Duration: 2 * time.Minute}},
	}
	s.Authorization.Mode = config.KubeletAuthorizationModeWebhook

	// A machine is a set of namespaces, not a whole host.
	s.CgroupDriver = "cgroupfs"
	s.CgroupsPerQOS = false
	s.EnforceNodeAllocatable = nil
	s.FailCgroupV1 = false
	s.FailSwapOn = false
	s.OOMScoreAdj = 0
	s.MakeIPTablesUtilChains = false
	s.LocalStorageCapacityIsolation = false
	// The host's disk is not the lab's to judge: no image is collected, no pod evicted for it.
	s.ImageGCHighThresholdPercent = 100
	s.EvictionHard = map[string]string{"nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%"}
	// Nobody else uses this API server: no need to be shy.
	s.KubeAPIQPS, s.KubeAPIBurst = 200, 400
	s.RegistryPullQPS = 0
	s.SerializeImagePulls = false
	s.EventRecordQPS, s.EventBurst = 200, 400
}

// machineInfo is cAdvisor with the size of an instance type instead of the host's.
type machineInfo struct {
	cadvisor.Interface
	spec KubeletSpec
}

// MachineInfo reports the host with the instance's CPUs and memory.
func (m machineInfo) MachineInfo() (*cadvisorapi.MachineInfo, error) {
	host, err := m.Interface.MachineInfo()
	if err != nil {
		return nil, err
	}
	info := *host
	info.NumCores = m.spec.CPUs
	info.MemoryCapacity = uint64(m.spec.MemoryMiB) << 20
	return &info, nil
}
