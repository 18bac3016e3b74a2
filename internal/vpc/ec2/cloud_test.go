package ec2

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/google/go-cmp/cmp"

	"github.com/zonewise/zonewise/internal/vpc"
)

// show prints what was observed, a line an interface.
func show(list []vpc.Interface) string {
	var b strings.Builder
	for _, i := range list {
		fmt.Fprintf(&b, "%d %s gateway %s table %d", i.Index, i.Address, i.Gateway, i.Table)
		for _, a := range i.Addresses {
			fmt.Fprintf(&b, " %s", a)
		}
		for _, p := range i.Prefixes {
			fmt.Fprintf(&b, " %s", p)
		}
		if i.IPv6Prefix.IsValid() {
			fmt.Fprintf(&b, " %s", i.IPv6Prefix)
		}
		if i.Primary {
			b.WriteString(" primary")
		}
		if i.Unmanaged {
			b.WriteString(" unmanaged")
		}
		b.WriteString("\n")
	}
	return b.String()
}

func observe(t *testing.T, c *Cloud) []vpc.Interface {
	t.Helper()
	got, err := c.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func do(t *testing.T, c *Cloud, a vpc.Action) {
	t.Helper()
	if out, err := c.Do(t.Context(), a); err != nil || out.Failure != vpc.OK {
		t.Fatal(out, err)
	}
}

func tidy(t *testing.T, c *Cloud) int {
	t.Helper()
	busy, err := c.Tidy(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return busy
}

func expect(t *testing.T, want, got string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestWhoWeAre(t *testing.T) {
	c := newFake(t).open(t)
	want := Identity{ID: self, Type: "t3.medium", Zone: "ap-northeast-2a", Region: "ap-northeast-2", MAC: "02:00:00:00:00:00", VPC: "vpc-1"}
	if c.Self() != want {
		t.Errorf("got %+v", c.Self())
	}
	ranges, err := c.Ranges(t.Context())
	expect(t, "[192.168.0.0/16 100.64.0.0/16] <nil>", fmt.Sprint(ranges, err))
}

// Every action is few calls, and what it did is seen at once.
func TestActions(t *testing.T) {
	f := newFake(t)
	c := f.open(t)
	expect(t, "0 192.168.1.10 gateway 192.168.1.1 table 254 primary\n", show(observe(t, c)))
	expect(t, "DescribeNetworkInterfaces DescribeSubnets", f.called())

	out, err := c.Do(t.Context(), vpc.Action{Verb: vpc.AssignAddresses, Interface: "eni-0", Count: 2})
	expect(t, "{  [192.168.1.12 192.168.1.13] []} <nil>", fmt.Sprint(out, err))
	expect(t, "AssignPrivateIpAddresses", f.called())
	do(t, c, vpc.Action{Verb: vpc.CreateInterface, Subnet: "subnet-1", Index: 1, Count: 1, OfPrefixes: true})
	expect(t, "CreateNetworkInterface AttachNetworkInterface ModifyNetworkInterfaceAttribute", f.called())
	made := f.interfaces[1]
	if !made.bound || made.groups[0] != "sg-1" || made.description != "zonewise "+self {
		t.Errorf("made %+v", made)
	}
	expect(t, "map[cluster.k8s.amazonaws.com/name:test node.k8s.amazonaws.com/instance_id:"+self+
		" team:net zonewise.io/created-at:2026-01-01T00:00:00Z zonewise.io/owner:zonewise-cni]", fmt.Sprint(made.tags))

	const both = "0 192.168.1.10 gateway 192.168.1.1 table 254 192.168.1.12 192.168.1.13 primary\n" +
		"1 192.168.1.14 gateway 192.168.1.1 table 2 192.168.1.16/28\n"
	expect(t, both, show(c.Known()))
	expect(t, "", f.called())
	expect(t, both, show(observe(t, c)))
	expect(t, "DescribeNetworkInterfaces", f.called()) // the subnet's range is known

	do(t, c, vpc.Action{Verb: vpc.AssignPrefixes, Interface: made.id, Count: 1})
	do(t, c, vpc.Action{Verb: vpc.UnassignAddresses, Interface: "eni-0", Addresses: []netip.Addr{netip.MustParseAddr("192.168.1.12")}})
	do(t, c, vpc.Action{Verb: vpc.UnassignPrefixes, Interface: made.id, Prefixes: []netip.Prefix{netip.MustParsePrefix("192.168.1.16/28")}})
	do(t, c, vpc.Action{Verb: vpc.AssignIPv6Prefix, Interface: "eni-0"})
	const after = "0 192.168.1.10 gateway 192.168.1.1 table 254 192.168.1.13 fd00:192:168:1:1::/80 primary\n" +
		"1 192.168.1.14 gateway 192.168.1.1 table 2 192.168.1.48/28\n"
	expect(t, after, show(c.Known()))
	expect(t, after, show(observe(t, c)))
	if _, err := c.Do(t.Context(), vpc.Action{Verb: "Dance"}); err == nil {
		t.Error("an action that is not known was done")
	}
}

// Security groups are one call for an interface, and the metadata tell those of the primary without any.
func TestSecurityGroups(t *testing.T) {
	f := newFake(t)
	c := f.open(t)
	observe(t, c)
	do(t, c, vpc.Action{Verb: vpc.CreateInterface, Subnet: "subnet-1", Index: 1, Count: 1})
	made := f.interfaces[1]
	f.interfaces[0].groups = []string{"sg-2", "sg-1"}
	f.called()
	groups, err := c.Groups(t.Context())
	expect(t, "[sg-1 sg-2] <nil>", fmt.Sprint(groups, err))
	do(t, c, vpc.Action{Verb: vpc.SetSecurityGroups, Interface: made.id, SecurityGroups: groups})
	expect(t, "ModifyNetworkInterfaceAttribute", f.called())
	expect(t, "[sg-1 sg-2]", fmt.Sprint(made.groups))
	if !made.bound {
		t.Error("it does not end with its instance any more")
	}
	expect(t, "[sg-1 sg-2]", fmt.Sprint(c.Known()[1].SecurityGroups))
	expect(t, "[sg-1 sg-2]", fmt.Sprint(observe(t, c)[1].SecurityGroups))
	f.answer["ModifyNetworkInterfaceAttribute"] = refuse(400, "UnauthorizedOperation", "no")
	out, err := c.Do(t.Context(), vpc.Action{Verb: vpc.SetSecurityGroups, Interface: made.id, SecurityGroups: []string{"sg-3"}})
	if out.Failure != vpc.Denied || err == nil {
		t.Error(out, err)
	}
}

// Detaching takes a while; Tidy deletes when EC2 lets it.
func TestDelete(t *testing.T) {
	f := newFake(t)
	c := f.open(t)
	observe(t, c)
	do(t, c, vpc.Action{Verb: vpc.CreateInterface, Subnet: "subnet-1", Index: 1, Count: 1})
	made := f.interfaces[1]
	observe(t, c)
	tidy(t, c)
	f.called()
	do(t, c, vpc.Action{Verb: vpc.DeleteInterface, Interface: made.id})
	if busy := tidy(t, c); busy != 1 {
		t.Errorf("%d busy", busy)
	}
	expect(t, "DetachNetworkInterface DeleteNetworkInterface", f.called())
	if seen := observe(t, c); !seen[1].Unmanaged { // it takes its place until it is off
		t.Errorf("still ours: %+v", seen[1])
	}
	made.attachment = ""
	if busy := tidy(t, c); busy != 0 || len(f.interfaces) != 1 {
		t.Errorf("%d busy, %d interfaces", busy, len(f.interfaces))
	}
	if known := c.Known(); len(known) != 1 {
		t.Errorf("still takes a place: %+v", known)
	}
	f.called()
	if tidy(t, c); f.called() != "" {
		t.Error("nothing was to do")
	}
	do(t, c, vpc.Action{Verb: vpc.DeleteInterface, Interface: made.id}) // again
}

// EC2 answers with what was a moment ago: what we got since is there nevertheless, for a minute.
func TestStaleAnswers(t *testing.T) {
	f := newFake(t)
	c := f.open(t)
	observe(t, c)
	f.stale = []*record{{id: "eni-0", attachment: "attach-0", bound: true, addresses: []string{"192.168.1.10"}}}
	do(t, c, vpc.Action{Verb: vpc.AssignAddresses, Interface: "eni-0", Count: 2})
	do(t, c, vpc.Action{Verb: vpc.CreateInterface, Subnet: "subnet-1", Index: 1, Count: 1})
	do(t, c, vpc.Action{Verb: vpc.AssignAddresses, Interface: f.interfaces[1].id, Count: 1})
	const both = "0 192.168.1.10 gateway 192.168.1.1 table 254 192.168.1.12 192.168.1.13 primary\n" +
		"1 192.168.1.14 gateway 192.168.1.1 table 2 192.168.1.15 192.168.1.16\n"
	expect(t, both, show(observe(t, c)))
	expect(t, both, show(observe(t, c)))
	do(t, c, vpc.Action{Verb: vpc.UnassignAddresses, Interface: f.interfaces[1].id, Addresses: []netip.Addr{netip.MustParseAddr("192.168.1.15")}})
	expect(t, strings.Replace(both, " 192.168.1.15", "", 1), show(observe(t, c)))
	f.now = f.now.Add(lag)
	expect(t, "0 192.168.1.10 gateway 192.168.1.1 table 254 primary\n", show(observe(t, c)))
}

// An attempt to make an interface leaves nothing, wherever it fails: what cannot be taken away at once is later.
func TestCreateFailsHalfWay(t *testing.T) {
	for _, failing := range []string{"CreateNetworkInterface", "AttachNetworkInterface", "AttachNetworkInterface DeleteNetworkInterface"} {
		f := newFake(t)
		c := f.open(t)
		observe(t, c)
		tidy(t, c)
		for _, action := range strings.Fields(failing) {
			f.answer[action] = refuse(400, "AttachmentLimitExceeded", "no")
		}
		out, err := c.Do(t.Context(), vpc.Action{Verb: vpc.CreateInterface, Subnet: "subnet-1", Index: 1, Count: 1})
		if out.Failure != vpc.Limit || err == nil {
			t.Errorf("%s: %v, %v", failing, out, err)
		}
		if tidy(t, c); len(f.interfaces) != 1 {
			t.Errorf("%s: %d interfaces", failing, len(f.interfaces))
		}
	}
}

// One that is attached, but would outlive its instance, is kept, and mended.
func TestBindFails(t *testing.T) {
	f := newFake(t)
	c := f.open(t)
	observe(t, c)
	f.answer["ModifyNetworkInterfaceAttribute"] = refuse(503, "Unavailable", "later")
	_, err := c.Do(t.Context(), vpc.Action{Verb: vpc.CreateInterface, Subnet: "subnet-1", Index: 1, Count: 1})
	if Classify(err) != vpc.Away || !strings.Contains(err.Error(), "would outlive its instance: ModifyNetworkInterfaceAttribute: Unavailable: later") {
		t.Error(err)
	}
	observe(t, c)
	if tidy(t, c); !f.interfaces[1].bound {
		t.Error("it would still outlive its instance")
	}
	observe(t, c)
	f.called()
	if tidy(t, c); f.called() != "" {
		t.Error("mended twice")
	}
}

// Killed between making and attaching: the next process finds what is left by its tag, and nothing of others.
func TestLeftByFormerProcess(t *testing.T) {
	f := newFake(t)
	f.interfaces = append(f.interfaces,
		&record{id: "eni-left", tags: map[string]string{tagInstance: self, tagOwner: owner}, addresses: []string{"192.168.1.30"}},
		&record{id: "eni-other", tags: map[string]string{tagInstance: "i-2", tagOwner: owner}, addresses: []string{"192.168.1.31"}},
		&record{id: "eni-foreign", tags: map[string]string{tagInstance: self}, addresses: []string{"192.168.1.32"}})
	c := f.open(t)
	tidy(t, c)
	left := ""
	for _, r := range f.interfaces {
		left += r.id + " "
	}
	expect(t, "eni-0 eni-other eni-foreign ", left)
}

// Killed after it has begun to detach: the next process deletes what EC2 still says is attached, as soon as it is not; what
// others detach is theirs.
func TestDetachingByFormerProcess(t *testing.T) {
	f := newFake(t)
	tags := map[string]string{tagInstance: self, tagOwner: owner}
	ours := &record{id: "eni-1", attachment: "attach-1", status: "detaching", bound: true, index: 1, addresses: []string{"192.168.1.20"}, tags: tags}
	others := &record{id: "eni-2", attachment: "attach-2", status: "detaching", bound: true, index: 2, addresses: []string{"192.168.1.30"}}
	f.interfaces = append(f.interfaces, ours, others)
	c := f.open(t)
	for range 2 {
		observe(t, c)
		if busy := tidy(t, c); busy != 1 {
			t.Errorf("%d busy", busy)
		}
	}
	ours.attachment, others.attachment = "", ""
	if busy := tidy(t, c); busy != 0 || len(f.interfaces) != 2 || f.interfaces[1] != others {
		t.Errorf("%d busy, left %d", busy, len(f.interfaces))
	}
}

// Interfaces of others take their places, and are not touched.
func TestWhoseInterfaces(t *testing.T) {
	f := newFake(t)
	add := func(index int, tags map[string]string) {
		f.interfaces = append(f.interfaces, &record{id: fmt.Sprint("eni-", index), attachment: fmt.Sprint("attach-", index), status: "attached",
			index: index, tags: tags, addresses: []string{fmt.Sprint("192.168.1.5", index)}})
	}
	add(1, nil)
	add(2, map[string]string{tagInstance: self}) // upstream's: adopted
	add(3, map[string]string{tagInstance: self, tagUnmanaged: "true"})
	f.pages = 3
	c := f.open(t)
	var got []string
	for _, i := range observe(t, c) {
		got = append(got, fmt.Sprint(i.ID, " ", i.Unmanaged))
	}
	expect(t, "[eni-0 false eni-1 true eni-2 false eni-3 true]", fmt.Sprint(got))
	tidy(t, c)
	if bound := []bool{f.interfaces[1].bound, f.interfaces[2].bound, f.interfaces[3].bound}; !slices.Equal(bound, []bool{false, true, false}) {
		t.Errorf("bound %v", bound)
	}
}

func TestKindsOfFailure(t *testing.T) {
	cut := func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("<AssignPrivateIpAddressesResponse><assignedPrivateIpAddr"))
	}
	gone := func(w http.ResponseWriter, _ *http.Request) {
		conn, _, _ := w.(http.Hijacker).Hijack()
		_ = conn.Close()
	}
	for _, c := range []struct {
		answer http.HandlerFunc
		want   vpc.Failure
		text   string
	}{
		{refuse(503, "RequestLimitExceeded", "Request limit exceeded."), vpc.Throttled, "AssignPrivateIpAddresses: RequestLimitExceeded: Request limit exceeded."},
		{refuse(400, "PrivateIpAddressLimitExceeded", "Number of private addresses will exceed limit."), vpc.Limit, "will exceed limit"},
		{refuse(400, "InsufficientFreeAddressesInSubnet", "x"), vpc.SubnetFull, "x"},
		{refuse(400, "InsufficientCidrBlocks", "x"), vpc.Fragmented, "x"},
		{refuse(401, "AuthFailure", "AWS was not able to validate the provided access credentials"), vpc.Credentials, "credentials"},
		{refuse(403, "UnauthorizedOperation", "You are not authorized. Encoded authorization failure message: abc"), vpc.Denied, "UnauthorizedOperation: You are not authorized."},
		{refuse(400, "InvalidNetworkInterfaceID.NotFound", "x"), vpc.Gone, "x"},
		{refuse(500, "InternalError", "x"), vpc.Away, "x"},
		{refuse(500, "SomethingNew", "x"), vpc.Away, "x"},
		{refuse(400, "InvalidParameterCombination", "x"), vpc.Invalid, "x"},
		{func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(502) }, vpc.Away, ""},
		{cut, vpc.Away, "AssignPrivateIpAddresses: "},
		{gone, vpc.Away, "AssignPrivateIpAddresses: "},
	} {
		f := newFake(t)
		cloud := f.open(t)
		f.answer["AssignPrivateIpAddresses"] = c.answer
		_, err := cloud.Do(t.Context(), vpc.Action{Verb: vpc.AssignAddresses, Interface: "eni-0", Count: 1})
		if err == nil || Classify(err) != c.want || !strings.Contains(err.Error(), c.text) || strings.Contains(err.Error(), "abc") {
			t.Errorf("want %q: got %q: %v", c.want, Classify(err), err)
		}
	}
	if Classify(nil) != vpc.OK {
		t.Error("nothing is wrong with nothing")
	}
}

// Who has to be allowed what, or what does not answer, is known by the call's name.
func TestCallThatFails(t *testing.T) {
	f := newFake(t)
	c := f.open(t)
	observe(t, c)
	making := vpc.Action{Verb: vpc.CreateInterface, Subnet: "subnet-1", Index: 1, Count: 1}
	for _, step := range []struct {
		call   string
		answer http.HandlerFunc
		want   string
	}{
		{"CreateNetworkInterface", refuse(503, "Unavailable", "x"), "CreateNetworkInterface"},
		{"CreateNetworkInterface", refuse(403, "UnauthorizedOperation", "You are not authorized to perform this operation."), "CreateNetworkInterface"},
		{"CreateNetworkInterface", refuse(403, "UnauthorizedOperation", "User: x is not authorized to perform: ec2:CreateTags on resource: y"), "CreateTags"},
		{"AttachNetworkInterface", refuse(403, "UnauthorizedOperation", "User: x is not authorized to perform: ec2:AttachNetworkInterface because"), "AttachNetworkInterface"},
		{"ModifyNetworkInterfaceAttribute", refuse(503, "RequestLimitExceeded", "x"), "ModifyNetworkInterfaceAttribute"},
	} {
		f.answer[step.call] = step.answer
		out, err := c.Do(t.Context(), making)
		if err == nil || out.Call != step.want {
			t.Errorf("%s: call %q, %v", step.call, out.Call, err)
		}
	}
	if out, err := c.Do(t.Context(), vpc.Action{Verb: vpc.AssignAddresses, Interface: "eni-0", Count: 1}); err != nil || out.Call != "" {
		t.Errorf("what went well: %+v, %v", out, err)
	}
}

// Keys that are not accepted are not kept until they expire: others may have come in their place.
func TestRefusedCredentialsAreAskedForAnew(t *testing.T) {
	f := newFake(t)
	c := f.open(t)
	asked := 0
	c.settings.Credentials = aws.NewCredentialsCache(aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		asked++
		return aws.Credentials{AccessKeyID: "a", SecretAccessKey: "b", CanExpire: true, Expires: time.Now().Add(time.Hour)}, nil
	}))
	c.connect("ap-northeast-2")
	observe(t, c)
	observe(t, c)
	if asked != 1 {
		t.Errorf("asked %d times for keys that hold", asked)
	}
	f.answer["DescribeNetworkInterfaces"] = refuse(401, "AuthFailure", "x")
	if _, err := c.Observe(t.Context()); Classify(err) != vpc.Credentials {
		t.Error(err)
	}
	if observe(t, c); asked != 2 {
		t.Errorf("asked %d times", asked)
	}
}

// Answers that leave out what must be there are not taken for the truth.
func TestAnswersThatMakeNoSense(t *testing.T) {
	say := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(text)) }
	}
	for _, c := range []struct{ answer, want string }{
		{"<r/>", "primary interface of " + self + ": answer incomplete"},
		{"<r><networkInterfaceSet><item/></networkInterfaceSet></r>", `interface "" with MAC ""`},
		{"<r><networkInterfaceSet><item><networkInterfaceId>eni-1</networkInterfaceId><macAddress>02</macAddress><subnetId>s</subnetId>" +
			"<privateIpAddressesSet><item><privateIpAddress>300.1</privateIpAddress></item></privateIpAddressesSet></item></networkInterfaceSet></r>",
			`interface eni-1: address "300.1"`},
		{"<html>Sign in</ht", "DescribeNetworkInterfaces"},
	} {
		f := newFake(t)
		cloud := f.open(t)
		f.answer["DescribeNetworkInterfaces"] = say(c.answer)
		if _, err := cloud.Observe(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) || Classify(err) != vpc.Away {
			t.Errorf("want %q: got %q: %v", c.want, Classify(err), err)
		}
		observe(t, cloud)
	}
}

// What somebody takes away by hand is missed in the metadata; what was got a moment ago is not.
func TestMissing(t *testing.T) {
	f := newFake(t)
	f.pages = 0
	c := f.open(t)
	observe(t, c)
	do(t, c, vpc.Action{Verb: vpc.AssignAddresses, Interface: "eni-0", Count: 2})
	do(t, c, vpc.Action{Verb: vpc.AssignPrefixes, Interface: "eni-0", Count: 1})
	missing := func(want string) {
		t.Helper()
		got, err := c.Missing(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		expect(t, want, strings.Join(got, ", "))
	}
	const mac = "network/interfaces/macs/"
	f.meta = map[string]string{mac: "02:00:00:00:00:00/", mac + "02:00:00:00:00:00/local-ipv4s": "192.168.1.10"}
	missing("")
	f.now = f.now.Add(lag)
	observe(t, c)
	had := c.Known()[0]
	missing(fmt.Sprintf("%s of eni-0, %s/32 of eni-0, %s/32 of eni-0", had.Prefixes[0], had.Addresses[0], had.Addresses[1]))
	f.meta[mac+"02:00:00:00:00:00/local-ipv4s"] = fmt.Sprintf("192.168.1.10\n%s\n%s", had.Addresses[0], had.Addresses[1])
	f.meta[mac+"02:00:00:00:00:00/ipv4-prefix"] = had.Prefixes[0].String()
	missing("")
	f.meta[mac] = "02:00:00:00:00:99/"
	missing("eni-0")
	f.meta[mac+"02:00:00:00:00:00/local-ipv4s"], f.meta[mac] = "<html>", "02:00:00:00:00:00/"
	if _, err := c.Missing(t.Context()); err == nil || !strings.Contains(err.Error(), `"<html>/32" is no address`) {
		t.Errorf("got %v", err)
	}
}

func TestNoCredentials(t *testing.T) {
	f := newFake(t)
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	c := &Cloud{}
	var err error
	if c.door, err = f.options().open(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err = c.Do(t.Context(), vpc.Action{Verb: vpc.AssignAddresses, Interface: "eni-0", Count: 1})
	if Classify(err) != vpc.Credentials || !strings.Contains(err.Error(), "give the node a role") {
		t.Error(err)
	}
	if f.called() != "" {
		t.Error("EC2 was asked without credentials")
	}
}

func TestEndpointIsAway(t *testing.T) {
	f := newFake(t)
	c := f.open(t)
	f.server.Close()
	if _, err := c.Observe(t.Context()); Classify(err) != vpc.Away {
		t.Error(err)
	}
	if _, err := Open(t.Context(), f.options()); err == nil || !strings.Contains(err.Error(), "metadata service") {
		t.Error(err)
	}
}

// What nobody has claimed for five minutes is leaked; what is younger, attached, of others or of another cluster is not.
func TestLeaked(t *testing.T) {
	f := newFake(t)
	ours := func(id string, age time.Duration) *record {
		return &record{id: id, description: "zonewise i-gone", addresses: []string{"192.168.1.40"}, tags: map[string]string{
			tagOwner: owner, tagCluster: "test", tagInstance: "i-gone", tagCreated: f.now.Add(-age).Format(time.RFC3339)}}
	}
	leaked, young, attached, foreign, undated := ours("eni-a", leaked), ours("eni-b", leaked-time.Second), ours("eni-c", time.Hour), ours("eni-d", time.Hour), ours("eni-e", time.Hour)
	attached.attachment, foreign.description = "attach-c", "somebody else's"
	delete(undated.tags, tagCreated)
	f.interfaces = append(f.interfaces, leaked, young, attached, foreign, undated)
	a, err := OpenAccount(t.Context(), f.options())
	if err != nil {
		t.Fatal(err)
	}
	got, err := a.Leaked(t.Context())
	expect(t, "[eni-a] <nil>", fmt.Sprint(got, err))
	for range 2 {
		if err := a.Delete(t.Context(), "eni-a"); err != nil {
			t.Error(err)
		}
	}
	if err := a.Delete(t.Context(), "eni-c"); err == nil || !strings.Contains(err.Error(), "eni-c: DeleteNetworkInterface") {
		t.Error(err)
	}
	o := f.options()
	o.Cluster = ""
	if _, err := OpenAccount(t.Context(), o); err == nil {
		t.Error("without a cluster's name it would collect what others are about to use")
	}
}
