package cni

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/zonewise/zonewise/internal/vpc"
)

// errConfig is behind every error that the network configuration causes.
var errConfig = errors.New("network configuration")

// DefaultStateDir is where leases are kept when the configuration does not say. It goes with a
// reboot, as the wires do.
const DefaultStateDir = "/run/zonewise/cni"

// The least is what every IPv4 host must take in one piece; the most is what Linux has on a veth.
const minMTU, maxMTU = 576, 65535

// config is the network configuration, read and found good.
type config struct {
	version  string
	pool     vpc.Pool
	mtu      int // bytes; 0: as the node's uplink
	stateDir string
	valid    []types.GCAttachment // GC: what is still there
	previous *types100.Result     // CHECK: what ADD has answered
}

// parseConfig reads a configuration. The error names the field. Fields of other people are let
// pass, since runtimes add theirs; inside "pool" everything is ours.
func parseConfig(data []byte) (config, error) {
	var raw struct {
		types.PluginConf
		Pool     json.RawMessage `json:"pool"`
		MTU      int             `json:"mtu"`
		StateDir string          `json:"stateDir"`
	}
	if err := json.Unmarshal(data, &raw); err != nil {
		return config{}, fmt.Errorf("%w: %w", errConfig, err)
	}
	c := config{version: raw.CNIVersion, mtu: raw.MTU, stateDir: raw.StateDir, valid: raw.ValidAttachments}
	var errs []error
	var err error
	if c.pool, err = parsePool(raw.Pool); err != nil {
		errs = append(errs, fmt.Errorf("pool: %w", err))
	}
	if c.mtu != 0 && (c.mtu < minMTU || c.mtu > maxMTU) {
		errs = append(errs, fmt.Errorf("mtu: %d is not 0 (as the uplink) or %d to %d", c.mtu, minMTU, maxMTU))
	}
	if c.stateDir == "" {
		c.stateDir = DefaultStateDir
	}
	if !filepath.IsAbs(c.stateDir) {
		errs = append(errs, fmt.Errorf("stateDir: %q is not an absolute path", c.stateDir))
	}
	if c.previous, err = parsePrevious(&raw.PluginConf); err != nil {
		errs = append(errs, fmt.Errorf("prevResult: %w", err))
	}
	if err := errors.Join(errs...); err != nil {
		return config{}, fmt.Errorf("%w: %s", errConfig, strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	return c, nil
}

func parsePool(data json.RawMessage) (vpc.Pool, error) {
	if len(data) == 0 {
		return vpc.Pool{}, errors.New(`missing; write {"ranges": ["192.168.1.11-192.168.1.27"]}`)
	}
	var raw struct {
		Ranges []string `json:"ranges"`
		IPv6   string   `json:"ipv6"`
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&raw); err != nil {
		return vpc.Pool{}, err
	}
	if len(raw.Ranges) == 0 {
		return vpc.Pool{}, errors.New(`ranges: empty; write ["192.168.1.11-192.168.1.27"]`)
	}
	pool, err := vpc.NewPool(raw.Ranges)
	if err != nil || raw.IPv6 == "" {
		return pool, err
	}
	prefix, err := netip.ParsePrefix(raw.IPv6)
	if err != nil {
		return pool, fmt.Errorf(`ipv6: %q is not a prefix such as "fd00:192:168:1:1::/80"`, raw.IPv6)
	}
	if pool, err = pool.WithIPv6(prefix); err != nil {
		return pool, fmt.Errorf("ipv6: %w", err)
	}
	return pool, nil
}

func parsePrevious(c *types.PluginConf) (*types100.Result, error) {
	if c.RawPrevResult == nil {
		return nil, nil
	}
	if err := version.ParsePrevResult(c); err != nil {
		return nil, err
	}
	return types100.NewResultFromResult(c.PrevResult)
}

// parseArgs tells whose call it is. Kubernetes names the pod in CNI_ARGS; another runtime need not.
func parseArgs(args *skel.CmdArgs) (vpc.Key, vpc.Owner) {
	var o vpc.Owner
	for pair := range strings.SplitSeq(args.Args, ";") {
		switch name, value, _ := strings.Cut(pair, "="); name {
		case "K8S_POD_NAMESPACE":
			o.Namespace = value
		case "K8S_POD_NAME":
			o.Pod = value
		}
	}
	return vpc.Key{Container: args.ContainerID, Interface: args.IfName}, o
}
