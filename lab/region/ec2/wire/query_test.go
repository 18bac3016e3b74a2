package wire

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/zonewise/zonewise/lab/region/ec2"
)

// rewrite replaces the body of a request before it is signed.
func rewrite(body string) func(*middleware.Stack) error {
	return func(stack *middleware.Stack) error {
		return stack.Serialize.Add(middleware.SerializeMiddlewareFunc("rewrite", func(
			ctx context.Context, in middleware.SerializeInput, next middleware.SerializeHandler,
		) (middleware.SerializeOutput, middleware.Metadata, error) {
			r := in.Request.(*smithyhttp.Request)
			r, err := r.SetStream(strings.NewReader(body))
			if err != nil {
				return middleware.SerializeOutput{}, middleware.Metadata{}, err
			}
			in.Request = r
			return next.HandleSerialize(ctx, in)
		}), middleware.After)
	}
}

func TestQuery(t *testing.T) {
	q, err := parse(url.Values{
		"A": {"x"}, "N": {"7"}, "Bad": {"seven"}, "Yes": {"true"},
		"L.2": {"b"}, "L.10": {"c"}, "L.1": {"a"}, "L.x": {"no"}, "L.01": {"no"},
		"F.1.Name": {"n"}, "F.1.Value.1": {"v"}, "F.1.Value.2": {"w"},
	})
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(q.text("A"), q.number("N"), q.yes("Yes"), q.yes("None"), q.list("L"), q.text("F.1.Name"), q.items("F")[0].list("Value"), q.err())
	if want := "x7 true false [a b c]n[v w] <nil>"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	q.number("Bad")
	q.items("F")[0].number("Name")
	if err := q.err(); err == nil || !strings.Contains(err.Error(), "(seven) for parameter bad") {
		t.Errorf("the first fault is %v", err)
	}
}

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, value string
		want           bool
	}{
		{"", "", true}, {"", "x", false}, {"*", "", true}, {"*", "any", true}, {"a?c", "abc", true}, {"a?c", "ac", false},
		{"*ng1*", "lab-ng1-remoteAccess", true}, {"*ng1", "ng1x", false}, {"a*b*c", "axxbyyc", true}, {"a*b*c", "axxcyyb", false},
		{`a\*`, "a*", true}, {`a\*`, "ab", false}, {`\?`, "?", true}, {`\?`, "x", false}, {`*\*`, "ab*", true}, {`x\`, `x\`, true},
		{"*aab", "aaaab", true},
	} {
		if got := match(c.pattern, c.value); got != c.want {
			t.Errorf("match(%q, %q) = %v", c.pattern, c.value, got)
		}
	}
}

// No query breaks the server: each one parses, or is refused.
func FuzzQuery(f *testing.F) {
	f.Add("Action=DescribeInstances&Filter.1.Name=tag:Name&Filter.1.Value.1=*&MaxResults=5")
	f.Add("Action=CreateNetworkInterface&SubnetId=x&PrivateIpAddresses.1.PrivateIpAddress=1.2.3.4&PrivateIpAddresses.1.Primary=true")
	f.Add("Action=AuthorizeSecurityGroupIngress&GroupId=sg-1&IpPermissions.1.IpProtocol=-1&IpPermissions.1.IpRanges.1.CidrIp=0.0.0.0/0")
	f.Add("Filter.1=a&Filter.1.Name=b&Filter..=c&.=d&Filter.99999999999999999999.Name=e")
	server := newService(f, ec2.Options{}).server
	f.Fuzz(func(t *testing.T, text string) {
		values, err := url.ParseQuery(text)
		if err != nil {
			return
		}
		if _, err := parse(values); err != nil {
			return
		}
		names := []string{values.Get("Action")}
		if _, ok := actions[names[0]]; !ok {
			names = nil
			for name, a := range actions {
				if !a.mutates {
					names = append(names, name)
				}
			}
			slices.Sort(names)
		}
		for _, name := range names {
			q, _ := parse(values)
			answer, err := actions[name].run(server, q)
			if status, body := encode(serviceEC2, name, answer, err); status != 200 && err == nil || len(body) == 0 {
				t.Errorf("%s: status %d", name, status)
			}
		}
	})
}
