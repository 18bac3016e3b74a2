package vpc

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestParseTargets(t *testing.T) {
	for _, c := range []struct {
		env   string
		want  Targets
		notes string
	}{
		{"", DefaultTargets(), ""},
		{"WARM_ENI_TARGET=2 MAX_ENI=3 IP_COOLDOWN_PERIOD=5", with(func(t *Targets) { t.WarmENI, t.MaxENI, t.Cooldown = 2, 3, 5*time.Second }), ""},
		{"WARM_IP_TARGET=2 MINIMUM_IP_TARGET=10 WARM_ENI_TARGET=1", byIP(2, 10), "WARM_ENI_TARGET has no effect: WARM_IP_TARGET and MINIMUM_IP_TARGET go before it"},
		{"ENABLE_PREFIX_DELEGATION=true WARM_PREFIX_TARGET=2 WARM_ENI_TARGET=1", byPrefix(2, 0, 0),
			"WARM_ENI_TARGET has no effect: with ENABLE_PREFIX_DELEGATION it is WARM_PREFIX_TARGET that counts"},
		{"WARM_PREFIX_TARGET=1", DefaultTargets(), "WARM_PREFIX_TARGET has no effect: ENABLE_PREFIX_DELEGATION is not set"},
		{"AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG=true", with(func(t *Targets) { t.CustomNetworking = true }), ""},
		{"ENABLE_IPv6=true", with(func(t *Targets) { t.Family = IPv6 }), ""},
		{"ENABLE_IPv4=false ENABLE_IPv6=true WARM_IP_TARGET=3", with(func(t *Targets) { t.Family, t.WarmIP = IPv6, 3 }),
			"WARM_IP_TARGET has no effect: with ENABLE_IPv6 one prefix is enough for every pod"},
		{"ENABLE_IPv4=true ENABLE_IPv6=true", with(func(t *Targets) { t.Family = Dual }), ""},
	} {
		got, notes, err := ParseTargets(env(c.env))
		if err != nil || got != c.want || strings.Join(notes, "; ") != c.notes {
			t.Errorf("%s: %+v %q %v", c.env, got, notes, err)
		}
	}
	for bad, want := range map[string]string{
		"WARM_IP_TARGET=-1":                                        `WARM_IP_TARGET: "-1" is not a number from 0 to 65536`,
		"WARM_ENI_TARGET=many":                                     `WARM_ENI_TARGET: "many" is not a number`,
		"MINIMUM_IP_TARGET=99999999999":                            "is not a number from 0",
		"ENABLE_PREFIX_DELEGATION=yes":                             `ENABLE_PREFIX_DELEGATION: "yes" is not true or false`,
		"ENABLE_IPv4=false":                                        "both false",
		"MAX_ENI=1 AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG=true":        "AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG: not with MAX_ENI=1",
		"ENABLE_IPv6=true AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG=true": "AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG: not with ENABLE_IPv6 alone",
	} {
		if _, _, err := ParseTargets(env(bad)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", bad, err, want)
		}
	}
}

func env(text string) func(string) string {
	all := map[string]string{}
	for _, pair := range strings.Fields(text) {
		name, value, _ := strings.Cut(pair, "=")
		all[name] = value
	}
	return func(name string) string { return all[name] }
}

func TestLimits(t *testing.T) {
	custom := with(func(t *Targets) { t.CustomNetworking = true })
	for _, c := range []struct {
		instance string
		targets  Targets
		cpus     int
		want     int
	}{
		{"t3.nano", DefaultTargets(), 2, 4}, {"t3.small", DefaultTargets(), 2, 11}, {"t3.medium", DefaultTargets(), 2, 17},
		{"t3.large", DefaultTargets(), 2, 35}, {"m5.large", DefaultTargets(), 2, 29}, {"m5.xlarge", DefaultTargets(), 4, 58},
		{"c5.large", DefaultTargets(), 2, 29}, {"p3dn.24xlarge", DefaultTargets(), 96, 737}, {"p4d.24xlarge", DefaultTargets(), 96, 737},
		{"t3.medium", byPrefix(1, 0, 0), 2, 110}, {"t3.nano", byPrefix(1, 0, 0), 2, 34}, {"p3dn.24xlarge", byPrefix(1, 0, 0), 96, 250},
		{"m4.large", byPrefix(1, 0, 0), 2, 20}, {"t3.medium", custom, 2, 12}, {"t3.medium", with(func(t *Targets) { t.Family = IPv6 }), 2, 110},
		{"t3.medium", with(func(t *Targets) { t.MaxENI = 2 }), 2, 12},
	} {
		l, err := LimitsOf(c.instance)
		if err != nil {
			t.Fatal(err)
		}
		if got := MaxPods(l, c.targets, c.cpus); got != c.want {
			t.Errorf("%s %s: %d, want %d", c.instance, fmt.Sprint(c.targets), got, c.want)
		}
	}
	if _, err := LimitsOf("t9.huge"); err == nil || !strings.Contains(err.Error(), `"t9.huge" is not known; a newer one is found by`) {
		t.Error(err)
	}
}

// Every line of the table can be read.
func TestTable(t *testing.T) {
	n := 0
	for line := range strings.Lines(instances) {
		name, _, _ := strings.Cut(line, " ")
		if l, err := LimitsOf(name); err != nil || l.Interfaces < 1 || l.IPv4 < 2 {
			t.Errorf("%q: %+v %v", line, l, err)
		}
		n++
	}
	if n < 1000 {
		t.Errorf("%d instance types", n)
	}
}
