package wire

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/zonewise/zonewise/lab/region/ec2"
)

// query is the parameters of a request as a tree: Filter.1.Value.2=x is the value of 2 of Value of 1 of
// Filter. Whoever asks for a value of the wrong kind gets the zero value, and the first such fault is
// kept at the root. Parameters that nobody asks for are ignored.
type query struct {
	name  string // with all above it
	value string
	has   bool
	below map[string]*query
	fault *error // shared by the tree
}

// Bounds of a request: what is beyond them is no request of EC2's.
const (
	maxParameters = 10000
	maxDepth      = 10
)

func parse(values url.Values) (*query, error) {
	if len(values) > maxParameters {
		return nil, fault("RequestEntityTooLarge", "The request has %d parameters: more than %d", len(values), maxParameters)
	}
	var none error
	root := &query{fault: &none}
	for key, all := range values {
		parts := strings.Split(key, ".")
		if len(parts) > maxDepth {
			return nil, fault("InvalidQueryParameter", "The parameter %q is too deep", key)
		}
		at := root
		for i, part := range parts {
			next := at.below[part]
			if next == nil {
				next = &query{name: strings.Join(parts[:i+1], "."), fault: root.fault}
				if at.below == nil {
					at.below = map[string]*query{}
				}
				at.below[part] = next
			}
			at = next
		}
		at.value, at.has = all[0], true
	}
	return root, nil
}

// at returns what is below a name; an empty query where there is nothing.
func (q *query) at(name string) *query {
	for part := range strings.SplitSeq(name, ".") {
		next := q.below[part]
		if next == nil {
			return &query{name: name, fault: q.fault}
		}
		q = next
	}
	return q
}

func (q *query) text(name string) string { return q.at(name).value }

// need is the text of a parameter that must be there.
func (q *query) need(name string) string {
	v := q.at(name)
	if v.value == "" {
		q.fail(fault("MissingParameter", "The request must contain the parameter %s", lower(name)))
	}
	return v.value
}

func (q *query) number(name string) int {
	v := q.at(name)
	if !v.has {
		return 0
	}
	n, err := strconv.Atoi(v.value)
	if err != nil {
		q.invalid(name, v.value)
	}
	return n
}

// count is a number of things to be made: not negative, and no more than any subnet holds.
func (q *query) count(name string) int {
	n := q.number(name)
	if n < 0 || n > 1<<16 {
		q.invalid(name, strconv.Itoa(n))
		return 0
	}
	return n
}

func (q *query) yes(name string) bool {
	v := q.at(name)
	switch strings.ToLower(v.value) {
	case "true", "1":
		return true
	case "", "false", "0":
	default:
		q.invalid(name, v.value)
	}
	return false
}

// items are the elements of a list in the order of their numbers.
func (q *query) items(name string) []*query {
	list := q.at(name)
	var numbers []int
	byNumber := map[int]*query{}
	for key, item := range list.below {
		if n, err := strconv.Atoi(key); err == nil && strconv.Itoa(n) == key {
			numbers = append(numbers, n)
			byNumber[n] = item
		}
	}
	slices.Sort(numbers)
	out := make([]*query, len(numbers))
	for i, n := range numbers {
		out[i] = byNumber[n]
	}
	return out
}

func (q *query) list(name string) []string {
	var out []string
	for _, item := range q.items(name) {
		out = append(out, item.value)
	}
	return out
}

func (q *query) address(name string) (netip.Addr, bool) {
	v := q.at(name)
	if v.value == "" {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(v.value)
	if err != nil || a.Zone() != "" {
		q.invalid(name, v.value)
		return a, false
	}
	return a, true
}

// addresses of a list, whose elements are values or have them below a name.
func (q *query) addresses(name, below string) []netip.Addr {
	return values(q, name, below, func(text string) (netip.Addr, error) {
		a, err := netip.ParseAddr(text)
		if err == nil && a.Zone() != "" {
			err = fmt.Errorf("zone")
		}
		return a, err
	})
}

func (q *query) prefixes(name, below string) []netip.Prefix {
	return values(q, name, below, netip.ParsePrefix)
}

func (q *query) prefix(name string) netip.Prefix {
	v := q.at(name)
	if v.value == "" {
		return netip.Prefix{}
	}
	p, err := netip.ParsePrefix(v.value)
	if err != nil {
		q.invalid(name, v.value)
	}
	return p
}

func values[T any](q *query, name, below string, read func(string) (T, error)) []T {
	var out []T
	for _, item := range q.items(name) {
		text := item.value
		if below != "" {
			text = item.text(below)
		}
		v, err := read(text)
		if err != nil {
			q.invalid(item.name, text)
			continue
		}
		out = append(out, v)
	}
	return out
}

// tags that are asked for with a new record of a kind.
func (q *query) tags(kind string) ec2.Tags {
	out := ec2.Tags{}
	for _, spec := range q.items("TagSpecification") {
		if of := spec.text("ResourceType"); of != kind {
			q.fail(fault(codeValue, "'%s' is not a valid taggable resource type for this operation.", of))
			continue
		}
		for _, t := range spec.items("Tag") {
			out[t.text("Key")] = t.text("Value")
		}
	}
	return out
}

func (q *query) invalid(name, value string) {
	q.fail(fault(codeValue, "Value (%s) for parameter %s is invalid.", value, lower(name)))
}

func (q *query) fail(err error) {
	if *q.fault == nil {
		*q.fault = err
	}
}

// err is the first fault that was found.
func (q *query) err() error { return *q.fault }

// lower is how EC2's errors spell a parameter.
func lower(name string) string {
	if name == "" {
		return name
	}
	return strings.ToLower(name[:1]) + name[1:]
}

const codeValue = "InvalidParameterValue"

func fault(code, format string, args ...any) error {
	return &ec2.Error{Code: code, Message: fmt.Sprintf(format, args...)}
}
