package topology

import (
	"fmt"
	"strings"

	"github.com/zonewise/zonewise/internal/vpc"
)

// maxPods is how many pods a node of an instance type holds: with static addresses as many as its
// interfaces have addresses, with the cloud's also by the settings of the CNI in the chart's values.
func (t *Topology) maxPods(i Instance) (int, error) {
	if t.CNI == CNIStatic {
		return i.MaxPods(), nil
	}
	limits, err := vpc.LimitsOf(i.Type)
	if err != nil {
		return 0, err
	}
	cni, _ := t.Values["cni"].(map[string]any)
	environment, _ := cni["env"].(map[string]any)
	targets, _, err := vpc.ParseTargets(func(name string) string {
		if value, ok := environment[name]; ok && value != nil {
			return fmt.Sprint(value)
		}
		return ""
	})
	if err != nil {
		return 0, fmt.Errorf("values.cni.env: %s", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	return vpc.MaxPods(limits, targets, i.CPUs), nil
}
