package vpc

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// The names by which a node says which ENIConfig is its own, besides those of the settings.
const (
	externalConfigLabel = "vpc.amazonaws.com/externalEniConfig"
	defaultConfigName   = "k8s.amazonaws.com/eniConfig"
	defaultConfig       = "default"
)

// Settings are what the user says, by the names of upstream's environment variables.
type Settings struct {
	Targets             Targets
	Notes               []string          // what of it has no effect, and why
	Cluster             string            // CLUSTER_NAME
	ExternalSNAT        bool              // AWS_VPC_K8S_CNI_EXTERNALSNAT
	Excluded            []netip.Prefix    // AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS
	DiscoverSubnets     bool              // ENABLE_SUBNET_DISCOVERY
	ManageUnschedulable bool              // AWS_MANAGE_ENIS_NON_SCHEDULABLE
	ConfigLabel         string            // ENI_CONFIG_LABEL_DEF
	ConfigAnnotation    string            // ENI_CONFIG_ANNOTATION_DEF
	MTU                 int               // AWS_VPC_ENI_MTU; 0: as the primary interface has
	Tags                map[string]string // ADDITIONAL_ENI_TAGS
}

// ConfigName is the ENIConfig of a node, by the first of them that is there.
func (s Settings) ConfigName(labels, annotations map[string]string) string {
	for _, name := range []string{labels[externalConfigLabel], annotations[s.ConfigAnnotation], labels[s.ConfigLabel]} {
		if name != "" {
			return name
		}
	}
	return defaultConfig
}

// ParseSettings reads them; get returns "" for what is not set. The error names all that is wrong.
func ParseSettings(get func(string) string) (Settings, error) {
	s := Settings{Cluster: get("CLUSTER_NAME"), DiscoverSubnets: true,
		ConfigLabel: defaultConfigName, ConfigAnnotation: defaultConfigName}
	var errs []error
	var err error
	if s.Targets, s.Notes, err = ParseTargets(get); err != nil {
		errs = append(errs, err)
	}
	for name, into := range map[string]*bool{"AWS_VPC_K8S_CNI_EXTERNALSNAT": &s.ExternalSNAT, "ENABLE_SUBNET_DISCOVERY": &s.DiscoverSubnets,
		"AWS_MANAGE_ENIS_NON_SCHEDULABLE": &s.ManageUnschedulable} {
		errs = append(errs, parseBool(name, get(name), into))
	}
	for name, into := range map[string]*string{"ENI_CONFIG_LABEL_DEF": &s.ConfigLabel, "ENI_CONFIG_ANNOTATION_DEF": &s.ConfigAnnotation} {
		if text := get(name); text != "" {
			*into = text
		}
	}
	for word := range strings.FieldsFuncSeq(get("AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS"), func(r rune) bool { return r == ',' || r == ' ' }) {
		p, err := netip.ParsePrefix(word)
		if err != nil {
			errs = append(errs, fmt.Errorf("AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS: %q is no range of addresses, such as 10.0.0.0/8", word))
		}
		s.Excluded = append(s.Excluded, p.Masked())
	}
	errs = append(errs, parseMTU(get("AWS_VPC_ENI_MTU"), &s.MTU), parseTags(get("ADDITIONAL_ENI_TAGS"), &s.Tags))
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	return s, errors.Join(errs...)
}

func parseBool(name, text string, into *bool) error {
	if text == "" {
		return nil
	}
	var err error
	if *into, err = strconv.ParseBool(text); err != nil {
		return fmt.Errorf("%s: %q is not true or false", name, text)
	}
	return nil
}

// The least is what every host of IPv6 must take in one piece, the most what EC2 carries.
const minMTU, maxMTU = 1280, 9001

func parseMTU(text string, into *int) error {
	if text == "" {
		return nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < minMTU || n > maxMTU {
		return fmt.Errorf("AWS_VPC_ENI_MTU: %q is not a number from %d to %d", text, minMTU, maxMTU)
	}
	*into = n
	return nil
}

// parseTags reads an object of JSON, as upstream has it.
func parseTags(text string, into *map[string]string) error {
	if text == "" {
		return nil
	}
	if err := json.Unmarshal([]byte(text), into); err != nil {
		return fmt.Errorf(`ADDITIONAL_ENI_TAGS: %q is not of the form {"key": "value"}`, text)
	}
	for key := range *into {
		if strings.Contains(key, "k8s.amazonaws.com") || strings.HasPrefix(key, "zonewise.io/") || strings.HasPrefix(key, "aws:") {
			return fmt.Errorf("ADDITIONAL_ENI_TAGS: %s: reserved: interfaces are known again by tags of this kind", key)
		}
	}
	return nil
}
