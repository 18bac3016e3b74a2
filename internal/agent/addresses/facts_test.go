package addresses

import (
	"strings"
	"testing"
)

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(`{"spec":{"subnet":"subnet-1","securityGroups":["sg-1"]}}`))
	f.Add([]byte(`{"spec":{"subnet":"net"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		subnet, groups, err := parseConfig(data)
		if err == nil && !strings.HasPrefix(subnet, "subnet-") {
			t.Fatalf("accepted %q, %q of %s", subnet, groups, data)
		}
	})
}
