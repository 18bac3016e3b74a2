package cni

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/zonewise/zonewise/internal/vpc"
	"github.com/zonewise/zonewise/internal/vpc/files"
)

// errConfig is behind every error that the network configuration causes.
var errConfig = errors.New("network configuration")

// The least is what every IPv4 host must take in one piece; the most is what Linux has on a veth.
const minMTU, maxMTU = 576, 65535

// config is the network configuration, read and found good.
type config struct {
	version  string
	pool     vpc.Pool      // of ranges; nothing where cloud is set
	cloud    bool          // the pool is what the daemon got from the cloud
	wait     time.Duration // how long an ADD waits for the cloud
	mtu      int           // bytes; 0: as the node's uplink
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
	if err = c.parsePool(raw.Pool); err != nil {
		errs = append(errs, fmt.Errorf("pool: %w", err))
	}
	if c.mtu != 0 && (c.mtu < minMTU || c.mtu > maxMTU) {
		errs = append(errs, fmt.Errorf("mtu: %d is not 0 (as the uplink) or %d to %d", c.mtu, minMTU, maxMTU))
	}
	if c.stateDir == "" {
		c.stateDir = files.DefaultDir
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

func (c *config) parsePool(data json.RawMessage) error {
	if len(data) == 0 {
		return errors.New(`missing; write {"from": "cloud"} or {"ranges": ["192.168.1.11-192.168.1.27"]}`)
	}
	var raw struct {
		From   string   `json:"from"`
		Wait   string   `json:"wait"`
		Ranges []string `json:"ranges"`
		IPv6   string   `json:"ipv6"`
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&raw); err != nil {
		return err
	}
	var err error
	switch raw.From {
	case fromCloud:
		if len(raw.Ranges) > 0 || raw.IPv6 != "" {
			return errors.New(`from: the cloud gives the addresses; leave out ranges and ipv6, or "from"`)
		}
		c.cloud = true
		c.wait, err = parseWait(raw.Wait)
	case "":
		if raw.Wait != "" {
			return errors.New(`wait: ranges do not grow; leave it out, or write "from": "cloud"`)
		}
		c.pool, err = parseRanges(raw.Ranges, raw.IPv6)
	default:
		err = fmt.Errorf(`from: %q is not "cloud"; leave it out to give ranges`, raw.From)
	}
	return err
}

// fromCloud is the one value that "from" has.
const fromCloud = "cloud"

// An ADD that waits longer than maxWait is given up by kubelet, which does not say why.
const defaultWait, maxWait = time.Minute, 3 * time.Minute

func parseWait(s string) (time.Duration, error) {
	if s == "" {
		return defaultWait, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 || d > maxWait {
		return 0, fmt.Errorf("wait: %q is not a duration from 0s to %s, such as %s", s, maxWait, defaultWait)
	}
	return d, nil
}

func parseRanges(ranges []string, ipv6 string) (vpc.Pool, error) {
	if len(ranges) == 0 {
		return vpc.Pool{}, errors.New(`ranges: empty; write ["192.168.1.11-192.168.1.27"]`)
	}
	pool, err := vpc.NewPool(ranges)
	if err != nil || ipv6 == "" {
		return pool, err
	}
	prefix, err := netip.ParsePrefix(ipv6)
	if err != nil {
		return pool, fmt.Errorf(`ipv6: %q is not a prefix such as "fd00:192:168:1:1::/80"`, ipv6)
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
