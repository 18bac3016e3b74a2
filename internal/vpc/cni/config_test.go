package cni

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/skel"

	"github.com/zonewise/zonewise/internal/vpc/files"
)

func TestParseConfig(t *testing.T) {
	c, err := parseConfig([]byte(`{"cniVersion":"1.0.0","name":"zonewise","type":"zonewise-cni",
		"pool":{"ranges":["192.168.1.11-192.168.1.27"]},"mtu":9001,"capabilities":{"portMappings":true},
		"prevResult":{"cniVersion":"1.0.0","ips":[{"address":"192.168.1.11/32"}]},
		"cni.dev/valid-attachments":[{"containerID":"a","ifname":"eth0"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	if c.pool.Size() != 17 || c.mtu != 9001 || c.stateDir != files.DefaultDir || c.version != "1.0.0" {
		t.Errorf("got %+v", c)
	}
	if len(c.valid) != 1 || c.valid[0].ContainerID != "a" || len(c.previous.IPs) != 1 {
		t.Errorf("got %+v", c)
	}
}

func TestParseConfigOfTheCloud(t *testing.T) {
	for config, wait := range map[string]time.Duration{
		`{"pool":{"from":"cloud"}}`:                time.Minute,
		`{"pool":{"from":"cloud","wait":"500ms"}}`: 500 * time.Millisecond,
	} {
		if c, err := parseConfig([]byte(config)); err != nil || !c.cloud || c.wait != wait {
			t.Errorf("%s: got %+v, %v", config, c, err)
		}
	}
}

func TestParseConfigNamesTheField(t *testing.T) {
	const pool = `"pool":{"ranges":["10.0.0.1"]}`
	for _, c := range []struct{ config, want string }{
		{`{`, "unexpected end of JSON"},
		{`{}`, `pool: missing; write {"from": "cloud"} or {"ranges"`},
		{`{"pool":{}}`, "pool: ranges: empty"},
		{`{"pool":{"range":["10.0.0.1"]}}`, `pool: json: unknown field "range"`},
		{`{"pool":{"ranges":["10.0.0.0/8"]}}`, `pool: ranges[0] "10.0.0.0/8": pool of more than`},
		{`{"pool":{"ranges":["10.0.0.1","10.0.0.1"]}}`, `pool: ranges[1] "10.0.0.1": overlaps`},
		{`{"pool":{"ranges":"10.0.0.1"}}`, "ranges"},
		{`{"pool":{"ranges":["10.0.0.1"],"ipv6":"fd00::"}}`, `pool: ipv6: "fd00::" is not a prefix such as`},
		{`{"pool":{"ranges":["10.0.0.1"],"ipv6":"fd00::/120"}}`, "pool: ipv6: fd00::/120: leaves no room"},
		{`{"pool":{"from":"aws"}}`, `pool: from: "aws" is not "cloud"`},
		{`{"pool":{"from":"cloud","ranges":["10.0.0.1"]}}`, "pool: from: the cloud gives the addresses"},
		{`{"pool":{"from":"cloud","ipv6":"fd00::/80"}}`, "pool: from: the cloud gives the addresses"},
		{`{"pool":{"from":"cloud","wait":"1h"}}`, `pool: wait: "1h" is not a duration from 0s to 3m0s`},
		{`{"pool":{"from":"cloud","wait":"soon"}}`, `pool: wait: "soon" is not a duration`},
		{`{"pool":{"ranges":["10.0.0.1"],"wait":"1s"}}`, "pool: wait: ranges do not grow"},
		{`{` + pool + `,"mtu":100}`, "mtu: 100 is not"},
		{`{` + pool + `,"mtu":-1}`, "mtu: -1 is not"},
		{`{` + pool + `,"mtu":"big"}`, "mtu"},
		{`{` + pool + `,"stateDir":"run"}`, `stateDir: "run" is not an absolute path`},
		{`{"cniVersion":"1.0.0",` + pool + `,"prevResult":{"ips":7}}`, "prevResult"},
		{`{"mtu":1,"stateDir":"x"}`, `; stateDir: "x"`},
	} {
		_, err := parseConfig([]byte(c.config))
		if !errors.Is(err, errConfig) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.config, err, c.want)
		}
	}
}

func TestParseArgs(t *testing.T) {
	key, owner := parseArgs(&skel.CmdArgs{ContainerID: "c", IfName: "eth0",
		Args: "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;K8S_POD_UID=1=2"})
	if key.String() != "c/eth0" || owner.String() != "default/web-0" {
		t.Errorf("got %s, %s", key, owner)
	}
	if _, owner := parseArgs(&skel.CmdArgs{}); owner.String() != "/" {
		t.Errorf("got %s of nothing", owner)
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(`{"pool":{"ranges":["10.0.0.1-10.0.0.9"]},"mtu":0}`))
	f.Add([]byte(`{"pool":{"ranges":["10.0.0.1"],"ipv6":"fd00::/80"}}`))
	f.Add([]byte(`{"pool":{"from":"cloud","wait":"5s"}}`))
	f.Add([]byte(`{"cniVersion":"1.1.0","pool":{"ranges":["10.0.0.0/28"]},"prevResult":{"ips":[{}]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parseConfig(data)
		if err == nil && (c.cloud == (c.pool.Size() > 0) || c.stateDir == "") {
			t.Fatalf("accepted %s as %+v", data, c)
		}
		if err != nil && !errors.Is(err, errConfig) {
			t.Fatal(err)
		}
	})
}
