// Package vpccni_test holds our decisions on addresses against those of the VPC CNI's own code. It is in
// a module of its own, since that wants other versions of what we share with it.
package vpccni_test

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	upstream "github.com/aws/amazon-vpc-cni-k8s/pkg/vpc"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/zonewise/zonewise/internal/vpc"
)

var update = flag.Bool("update", false, "write the table of instance types anew")

// Our table is upstream's, in short.
func TestInstanceTypes(t *testing.T) {
	const path = "../../../internal/vpc/instances.txt"
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// Upstream does not tell which types it knows. The SDK knows some, and the table others.
	var names []string
	for line := range strings.Lines(string(have)) {
		name, _, _ := strings.Cut(line, " ")
		names = append(names, name)
	}
	for _, name := range types.InstanceType("").Values() {
		names = append(names, string(name))
	}
	slices.Sort(names)
	var want strings.Builder
	for _, name := range slices.Compact(names) {
		l, ok := upstream.GetInstance(name)
		if !ok {
			continue
		}
		prefixes := "no"
		if l.HypervisorType == "nitro" || l.IsBareMetal {
			prefixes = "yes"
		}
		fmt.Fprintln(&want, name, l.ENILimit, l.IPv4Limit, prefixes)
	}
	if *update {
		if err := os.WriteFile(path, []byte(want.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if want.String() != string(have) {
		t.Errorf("%s is not upstream's table: see what changes with `go test -update`", path)
	}
}

// LimitsOf finds what is in the table.
func TestLimitsAreUpstreams(t *testing.T) {
	for _, name := range types.InstanceType("").Values() {
		want, known := upstream.GetInstance(string(name))
		got, err := vpc.LimitsOf(string(name))
		if known != (err == nil) || got.Interfaces != want.ENILimit || got.IPv4 != want.IPv4Limit {
			t.Errorf("%s: %+v %v, upstream %+v", name, got, err, want)
		}
	}
}
