package machine

import (
	"slices"
	"strings"
	"testing"
)

func TestParseMounts(t *testing.T) {
	for _, c := range []struct {
		name, mountinfo string
		want            []hierarchy
	}{
		{"hybrid", `22 27 0:21 / /proc rw,relatime - proc proc rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,release_agent=/lib/agent,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
42 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
`, []hierarchy{
			{"/sys/fs/cgroup/cpu", "cgroup", "cpu,cpuacct"},
			{"/sys/fs/cgroup/systemd", "cgroup", "name=systemd"},
			{"/sys/fs/cgroup/unified", "cgroup2", ""},
		}},
		{"version 2 alone", "31 23 0:28 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n",
			[]hierarchy{{"/sys/fs/cgroup", "cgroup2", ""}}},
		{"none", "22 27 0:21 / /proc rw - proc proc rw\n", nil},
		{"broken lines", "x\n - \n22 27 - cgroup\n", nil},
	} {
		got, err := parseMounts(strings.NewReader(c.mountinfo))
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %+v, %v, want %+v", c.name, got, err, c.want)
		}
	}
}
