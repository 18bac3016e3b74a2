package vpc

import (
	"fmt"
	"strings"
	"testing"
)

func parseSettings(env map[string]string) (Settings, error) {
	return ParseSettings(func(name string) string { return env[name] })
}

func TestSettings(t *testing.T) {
	s, err := parseSettings(map[string]string{
		"WARM_IP_TARGET": "3", "CLUSTER_NAME": "shop", "AWS_VPC_K8S_CNI_EXTERNALSNAT": "true", "ENABLE_SUBNET_DISCOVERY": "false",
		"AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS": "10.1.2.3/8, 172.16.0.0/12", "AWS_VPC_ENI_MTU": "8500",
		"ENI_CONFIG_LABEL_DEF": "topology.kubernetes.io/zone", "ADDITIONAL_ENI_TAGS": `{"team":"net"}`,
	})
	if err != nil {
		t.Fatal(err)
	}
	for what, ok := range map[string]bool{
		"warm":     s.Targets.WarmIP == 3,
		"cluster":  s.Cluster == "shop",
		"snat":     s.ExternalSNAT && fmt.Sprint(s.Excluded) == "[10.0.0.0/8 172.16.0.0/12]",
		"discover": !s.DiscoverSubnets,
		"mtu":      s.MTU == 8500,
		"label":    s.ConfigLabel == "topology.kubernetes.io/zone" && s.ConfigAnnotation == defaultConfigName,
		"tags":     s.Tags["team"] == "net",
	} {
		if !ok {
			t.Errorf("%s: %+v", what, s)
		}
	}
	if s, err = parseSettings(nil); err != nil || !s.DiscoverSubnets || s.ExternalSNAT || s.MTU != 0 || s.ConfigLabel != defaultConfigName {
		t.Errorf("nothing set: %+v, %v", s, err)
	}
}

// A node's ENIConfig goes by upstream's label, an annotation, a label, and else it is the default.
func TestConfigName(t *testing.T) {
	s, err := parseSettings(map[string]string{"ENI_CONFIG_LABEL_DEF": "zone", "ENI_CONFIG_ANNOTATION_DEF": "config"})
	if err != nil {
		t.Fatal(err)
	}
	labels, annotations := map[string]string{"vpc.amazonaws.com/externalEniConfig": "a", "zone": "c"}, map[string]string{"config": "b"}
	for _, want := range []string{"a", "b", "c", "default"} {
		if got := s.ConfigName(labels, annotations); got != want {
			t.Errorf("%s, want %s", got, want)
		}
		switch want {
		case "a":
			delete(labels, "vpc.amazonaws.com/externalEniConfig")
		case "b":
			delete(annotations, "config")
		case "c":
			delete(labels, "zone")
		}
	}
}

// Everything that is wrong is named at once.
func TestSettingsThatAreWrong(t *testing.T) {
	_, err := parseSettings(map[string]string{
		"WARM_ENI_TARGET": "many", "AWS_VPC_K8S_CNI_EXTERNALSNAT": "yes", "AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS": "10.0.0.0",
		"AWS_VPC_ENI_MTU": "9002", "ADDITIONAL_ENI_TAGS": "team=net",
	})
	if err == nil {
		t.Fatal("nothing is wrong")
	}
	for _, want := range []string{
		`WARM_ENI_TARGET: "many"`, `AWS_VPC_K8S_CNI_EXTERNALSNAT: "yes" is not true or false`,
		`AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS: "10.0.0.0" is no range`, `AWS_VPC_ENI_MTU: "9002" is not a number from 1280 to 9001`,
		`ADDITIONAL_ENI_TAGS: "team=net" is not of the form {"key": "value"}`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %s in %v", want, err)
		}
	}
	_, err = parseSettings(map[string]string{"ADDITIONAL_ENI_TAGS": `{"node.k8s.amazonaws.com/instance_id":"i-1"}`})
	if err == nil || !strings.Contains(err.Error(), "node.k8s.amazonaws.com/instance_id: reserved") {
		t.Error(err)
	}
}
