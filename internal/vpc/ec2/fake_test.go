package ec2

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// fake is EC2 and the metadata service of one instance, as far as the door asks: records, and answers in XML.
type fake struct {
	mu         sync.Mutex
	server     *httptest.Server
	interfaces []*record
	calls      []string                    // actions, in their order
	answer     map[string]http.HandlerFunc // instead of ours, for one call each
	stale      []*record                   // what DescribeNetworkInterfaces tells instead; nil: the truth
	meta       map[string]string           // more of the instance's metadata, by path
	pages      int                         // interfaces of one page; 0: all
	next       int
	now        time.Time
}

// record is an interface.
type record struct {
	id, attachment, status, description string
	index                               int
	bound                               bool
	addresses                           []string // the primary one first
	prefixes, prefixes6                 []string
	groups                              []string
	tags                                map[string]string
}

const self = "i-0123456789abcdef0"

func newFake(t *testing.T) *fake {
	f := &fake{answer: map[string]http.HandlerFunc{}, now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), next: 11}
	f.interfaces = []*record{{id: "eni-0", attachment: "attach-0", status: "attached", bound: true,
		addresses: []string{"192.168.1.10"}, groups: []string{"sg-1"}}}
	f.server = httptest.NewServer(f)
	t.Cleanup(f.server.Close)
	t.Setenv("AWS_ACCESS_KEY_ID", "id")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	t.Setenv("AWS_CONFIG_FILE", "/nonexistent")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
	return f
}

func (f *fake) options() Options {
	return Options{Region: "ap-northeast-2", Endpoint: f.server.URL, Metadata: f.server.URL, Cluster: "test",
		Tags: map[string]string{"team": "net"}, Now: func() time.Time { return f.now }, attempts: 1}
}

func (f *fake) open(t *testing.T) *Cloud {
	t.Helper()
	c, err := Open(t.Context(), f.options())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// called returns the actions since it was last called.
func (f *fake) called() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := strings.Join(f.calls, " ")
	f.calls = nil
	return out
}

func (f *fake) find(id string) *record {
	i := slices.IndexFunc(f.interfaces, func(r *record) bool { return r.id == id || r.attachment == id })
	if i < 0 {
		return nil
	}
	return f.interfaces[i]
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if path, ok := strings.CutPrefix(r.URL.Path, "/latest/"); ok {
		f.metadata(w, path)
		return
	}
	_ = r.ParseForm()
	action := r.Form.Get("Action")
	f.calls = append(f.calls, action)
	if h := f.answer[action]; h != nil {
		delete(f.answer, action)
		h(w, r)
		return
	}
	do := map[string]func(url.Values) (string, string){
		"DescribeNetworkInterfaces": f.describe, "DescribeSubnets": f.subnets, "CreateNetworkInterface": f.create,
		"AttachNetworkInterface": f.attach, "ModifyNetworkInterfaceAttribute": f.modify, "DetachNetworkInterface": f.detach,
		"DeleteNetworkInterface": f.delete, "AssignPrivateIpAddresses": f.assign, "AssignIpv6Addresses": f.assignIPv6,
		"UnassignPrivateIpAddresses": f.unassign,
	}[action]
	body, code := do(r.Form)
	if code != "" {
		refuse(400, code, body)(w, r)
		return
	}
	fmt.Fprintf(w, `<%[1]sResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>r</requestId>%[2]s</%[1]sResponse>`, action, body)
}

// refuse is an answer that says no.
func refuse(status int, code, message string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		fmt.Fprintf(w, `<Response><Errors><Error><Code>%s</Code><Message>%s</Message></Error></Errors><RequestID>r</RequestID></Response>`, code, message)
	}
}

func (f *fake) metadata(w http.ResponseWriter, path string) {
	const mac = "meta-data/network/interfaces/macs/02:00:00:00:00:00/"
	pages := map[string]string{
		"api/token": "token", "meta-data/mac": "02:00:00:00:00:00", mac + "vpc-id": "vpc-1",
		mac + "security-group-ids": strings.Join(f.interfaces[0].groups, "\n"), mac + "vpc-ipv4-cidr-blocks": "192.168.0.0/16\n100.64.0.0/16",
	}
	identity, _ := json.Marshal(map[string]string{"instanceId": self, "instanceType": "t3.medium",
		"availabilityZone": "ap-northeast-2a", "region": "ap-northeast-2"})
	pages["dynamic/instance-identity/document"] = string(identity)
	for more, text := range f.meta {
		pages["meta-data/"+more] = text
	}
	text, ok := pages[path]
	if !ok {
		w.WriteHeader(http.StatusNotFound)
	}
	w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "60")
	_, _ = w.Write([]byte(text))
}

// wants tells whether an interface passes the filters of a request.
func wants(form url.Values, r *record) bool {
	for i := 1; form.Has(fmt.Sprintf("Filter.%d.Name", i)); i++ {
		name, value := form.Get(fmt.Sprintf("Filter.%d.Name", i)), form.Get(fmt.Sprintf("Filter.%d.Value.1", i))
		tag, isTag := strings.CutPrefix(name, "tag:")
		switch {
		case isTag && r.tags[tag] != value,
			name == "attachment.instance-id" && r.attachment == "",
			name == "status" && (r.attachment == "") != (value == "available"):
			return false
		}
	}
	return true
}

func (f *fake) describe(form url.Values) (string, string) {
	from, _ := strconv.Atoi(form.Get("NextToken"))
	all := f.interfaces
	if f.stale != nil {
		all = f.stale
	}
	var items []string
	for _, r := range all {
		if wants(form, r) {
			items = append(items, "<item>"+r.xml()+"</item>")
		}
	}
	more := ""
	if to := from + f.pages; f.pages > 0 && to < len(items) {
		items, more = items[:to], fmt.Sprintf("<nextToken>%d</nextToken>", to)
	}
	return "<networkInterfaceSet>" + strings.Join(items[from:], "") + "</networkInterfaceSet>" + more, ""
}

func (r *record) xml() string {
	var b strings.Builder
	status := "available"
	if r.attachment != "" {
		status = "in-use"
		fmt.Fprintf(&b, `<attachment><attachmentId>%s</attachmentId><instanceId>%s</instanceId><deviceIndex>%d</deviceIndex>
			<status>%s</status><deleteOnTermination>%v</deleteOnTermination><attachTime>2026-01-01T00:00:00.000Z</attachTime></attachment>`,
			r.attachment, self, r.index, r.status, r.bound)
	}
	fmt.Fprintf(&b, `<networkInterfaceId>%s</networkInterfaceId><macAddress>02:00:00:00:00:0%d</macAddress><subnetId>subnet-1</subnetId>
		<interfaceType>interface</interfaceType><status>%s</status><description>%s</description>`, r.id, r.index, status, r.description)
	list := func(name string, items []string, form func(i int, item string) string) {
		fmt.Fprintf(&b, "<%s>", name)
		for i, item := range items {
			fmt.Fprintf(&b, "<item>%s</item>", form(i, item))
		}
		fmt.Fprintf(&b, "</%s>", name)
	}
	list("privateIpAddressesSet", r.addresses, func(i int, a string) string {
		return fmt.Sprintf("<privateIpAddress>%s</privateIpAddress><primary>%v</primary>", a, i == 0)
	})
	list("ipv4PrefixSet", r.prefixes, func(_ int, p string) string { return "<ipv4Prefix>" + p + "</ipv4Prefix>" })
	list("ipv6PrefixSet", r.prefixes6, func(_ int, p string) string { return "<ipv6Prefix>" + p + "</ipv6Prefix>" })
	list("groupSet", r.groups, func(_ int, g string) string { return "<groupId>" + g + "</groupId>" })
	var keys []string
	for k := range r.tags {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	list("tagSet", keys, func(_ int, k string) string { return "<key>" + k + "</key><value>" + r.tags[k] + "</value>" })
	return b.String()
}

func (f *fake) subnets(url.Values) (string, string) {
	return `<subnetSet><item><subnetId>subnet-1</subnetId><availabilityZone>ap-northeast-2a</availabilityZone>
		<cidrBlock>192.168.1.0/24</cidrBlock><availableIpAddressCount>200</availableIpAddressCount></item></subnetSet>`, ""
}

func (f *fake) address() string {
	f.next++
	return netip.AddrFrom4([4]byte{192, 168, 1, byte(f.next)}).String()
}

// give adds what a request asks for to an interface.
func (f *fake) give(r *record, form url.Values) (addresses, prefixes []string) {
	n, _ := strconv.Atoi(form.Get("SecondaryPrivateIpAddressCount"))
	for range n {
		addresses = append(addresses, f.address())
	}
	n, _ = strconv.Atoi(form.Get("Ipv4PrefixCount"))
	for range n {
		f.next = (f.next/16 + 2) * 16
		prefixes = append(prefixes, netip.AddrFrom4([4]byte{192, 168, 1, byte(f.next - 16)}).String()+"/28")
	}
	r.addresses, r.prefixes = append(r.addresses, addresses...), append(r.prefixes, prefixes...)
	return addresses, prefixes
}

func (f *fake) create(form url.Values) (string, string) {
	r := &record{id: fmt.Sprint("eni-", len(f.calls), f.next), addresses: []string{f.address()}, tags: map[string]string{},
		groups: []string{form.Get("SecurityGroupId.1")}, description: form.Get("Description")}
	for i := 1; form.Has(fmt.Sprintf("TagSpecification.1.Tag.%d.Key", i)); i++ {
		r.tags[form.Get(fmt.Sprintf("TagSpecification.1.Tag.%d.Key", i))] = form.Get(fmt.Sprintf("TagSpecification.1.Tag.%d.Value", i))
	}
	f.give(r, form)
	f.interfaces = append(f.interfaces, r)
	return "<networkInterface>" + r.xml() + "</networkInterface>", ""
}

func (f *fake) attach(form url.Values) (string, string) {
	r := f.find(form.Get("NetworkInterfaceId"))
	r.attachment, r.status = "attach-"+r.id, "attached"
	r.index, _ = strconv.Atoi(form.Get("DeviceIndex"))
	return "<attachmentId>" + r.attachment + "</attachmentId>", ""
}

func (f *fake) modify(form url.Values) (string, string) {
	r := f.find(form.Get("NetworkInterfaceId"))
	if form.Has("Attachment.DeleteOnTermination") {
		r.bound = form.Get("Attachment.DeleteOnTermination") == "true"
	}
	if form.Has("SecurityGroupId.1") {
		r.groups = nil
	}
	for i := 1; form.Has(fmt.Sprintf("SecurityGroupId.%d", i)); i++ {
		r.groups = append(r.groups, form.Get(fmt.Sprintf("SecurityGroupId.%d", i)))
	}
	return "<return>true</return>", ""
}

func (f *fake) detach(form url.Values) (string, string) {
	r := f.find(form.Get("AttachmentId"))
	if r == nil {
		return "The attachment does not exist", "InvalidAttachmentID.NotFound"
	}
	r.status = "detaching" // a test says when it is done
	return "<return>true</return>", ""
}

func (f *fake) delete(form url.Values) (string, string) {
	r := f.find(form.Get("NetworkInterfaceId"))
	switch {
	case r == nil:
		return "The networkInterface ID does not exist", "InvalidNetworkInterfaceID.NotFound"
	case r.attachment != "":
		return "Network interface '" + r.id + "' is currently in use.", "InvalidParameterValue"
	}
	f.interfaces = slices.DeleteFunc(f.interfaces, func(o *record) bool { return o == r })
	return "<return>true</return>", ""
}

func (f *fake) assign(form url.Values) (string, string) {
	addresses, prefixes := f.give(f.find(form.Get("NetworkInterfaceId")), form)
	var b strings.Builder
	b.WriteString("<assignedPrivateIpAddressesSet>")
	for _, a := range addresses {
		b.WriteString("<item><privateIpAddress>" + a + "</privateIpAddress></item>")
	}
	b.WriteString("</assignedPrivateIpAddressesSet><assignedIpv4PrefixSet>")
	for _, p := range prefixes {
		b.WriteString("<item><ipv4Prefix>" + p + "</ipv4Prefix></item>")
	}
	b.WriteString("</assignedIpv4PrefixSet>")
	return b.String(), ""
}

func (f *fake) assignIPv6(form url.Values) (string, string) {
	r := f.find(form.Get("NetworkInterfaceId"))
	r.prefixes6 = append(r.prefixes6, "fd00:192:168:1:1::/80")
	return "<assignedIpv6PrefixSet><item>fd00:192:168:1:1::/80</item></assignedIpv6PrefixSet>", ""
}

func (f *fake) unassign(form url.Values) (string, string) {
	r := f.find(form.Get("NetworkInterfaceId"))
	for i := 1; form.Has(fmt.Sprintf("PrivateIpAddress.%d", i)); i++ {
		a := form.Get(fmt.Sprintf("PrivateIpAddress.%d", i))
		if !slices.Contains(r.addresses, a) {
			return "Some of the specified addresses are not assigned to interface " + r.id, "InvalidParameterValue"
		}
		r.addresses = slices.DeleteFunc(r.addresses, func(x string) bool { return x == a })
	}
	for i := 1; form.Has(fmt.Sprintf("Ipv4Prefix.%d", i)); i++ {
		p := form.Get(fmt.Sprintf("Ipv4Prefix.%d", i))
		r.prefixes = slices.DeleteFunc(r.prefixes, func(x string) bool { return x == p })
	}
	return "<return>true</return>", ""
}
