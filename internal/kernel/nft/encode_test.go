package nft

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// What is written can be read, however many messages it takes, and each is a whole one.
func TestElementsAreEncodedInLots(t *testing.T) {
	const n = 5000
	want := make([]Element, n)
	for i := range want {
		key := fmt.Sprintf("%04d\x06\x00\x00\x00\x00\x50\x00\x00", i)
		switch i % 3 {
		case 0:
			want[i] = Element{Key: key, Data: "zzzz\x00\x01\x00\x00"}
		case 1:
			want[i] = Element{Key: key, Verdict: Drop}
		case 2:
			want[i] = Element{Key: key, Verdict: Verdict(strings.Repeat("x", i%127+1))}
		}
	}
	var e encoder
	o := op{verb: addElements, set: Set{Name: "s"}, elements: want}
	if err := e.encode("t", o); err != nil {
		t.Fatal(err)
	}
	var got []Element
	total, count := 0, uint32(0)
	for m := range messages(e.b) {
		count++
		total += unix.NLMSG_HDRLEN + len(m.body)
		if m.seq != count || text(at(m.body[nfHeader:], unix.NFTA_SET_ELEM_LIST_SET)) != "s" {
			t.Errorf("message %d has number %d", count, m.seq)
		}
		for _, b := range attributes(at(m.body[nfHeader:], unix.NFTA_SET_ELEM_LIST_ELEMENTS)) {
			got = append(got, decodeElement(b))
		}
	}
	if total != len(e.b) || count != e.seq || count < 5 {
		t.Errorf("%d messages of %d, %d bytes of %d", count, e.seq, total, len(e.b))
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestCommentIsReadAgain(t *testing.T) {
	for _, want := range []string{"", "one of 3", strings.Repeat("x", 120)} {
		var e encoder
		if err := e.encode("t", op{verb: addRule, chain: Chain{Name: "c"}, rule: Rule{Comment: want}}); err != nil {
			t.Fatal(err)
		}
		for m := range messages(e.b) {
			if got := comment(at(m.body[nfHeader:], unix.NFTA_RULE_USERDATA)); got != want {
				t.Errorf("%q, want %q", got, want)
			}
		}
	}
	for _, notes := range []string{"", "\x00", "\x00\x05ab", "\x01\x02a\x00"} {
		if got := comment([]byte(notes)); got != "" {
			t.Errorf("notes %q: %q", notes, got)
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	elements := make([]Element, 10_000)
	for i := range elements {
		elements[i] = Element{Key: fmt.Sprintf("%04d\x06\x00\x00\x00\x00\x50\x00\x00", i%10_000), Verdict: "lb-2"}
	}
	e := encoder{b: make([]byte, 0, len(elements)*elementSize)}
	for b.Loop() {
		e.b = e.b[:0]
		if err := e.encode("t", op{verb: addElements, elements: elements}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(e.b))/float64(len(elements)), "bytes/element")
}
