package stream

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/meter/store/storetest"
	"github.com/zonewise/zonewise/internal/model"
)

func anyFlow(t *rapid.T) meter.Observed {
	name := rapid.SampledFrom([]string{"", "a", "b", "c"})
	party := func(of string) model.Party {
		return model.Party{Kind: model.PodParty, Zone: name.Draw(t, of+" zone"), Node: fmt.Sprint(rapid.IntRange(0, 30).Draw(t, of+" node")), Workload: name.Draw(t, of)}
	}
	return meter.Observed{Observer: rapid.SampledFrom([]meter.Observer{meter.AtClient, meter.AtServer, meter.Between}).Draw(t, "observer"), Flow: model.Flow{
		FlowKey: model.FlowKey{Client: party("client"), Server: party("server"), Service: model.Name{Namespace: name.Draw(t, "namespace"), Name: name.Draw(t, "service")},
			Port: rapid.Uint16().Draw(t, "port"), Protocol: rapid.SampledFrom([]model.Protocol{model.TCP, model.UDP}).Draw(t, "protocol"), Via: model.ViaNodePort, V6: rapid.Bool().Draw(t, "v6")},
		FlowCount: model.FlowCount{Connections: 1, RequestBytes: rapid.Uint64Range(0, 1<<50).Draw(t, "bytes"), ResponseBytes: 2, RequestPackets: 3, ResponsePackets: 4,
			RequestExtra: 5, ResponseExtra: 6},
	}}
}

func TestWireGivesBackWhatItTook(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		flows := rapid.SliceOfN(rapid.Custom(anyFlow), 0, 20).Draw(t, "flows")
		data, err := proto.Marshal(encode(time.Unix(5, 0), flows))
		if err != nil {
			t.Fatal(err)
		}
		var b Batch
		if err := proto.Unmarshal(data, &b); err != nil {
			t.Fatal(err)
		}
		got, err := decode(&b)
		if err != nil {
			t.Fatal(err)
		}
		if len(flows)+len(got) > 0 {
			if diff := cmp.Diff(flows, got); diff != "" {
				t.Errorf("(-put +got):\n%s", diff)
			}
		}
	})
}

// TestEveryFieldIsCarried looks for what of a flow is left out, also for what is still to come.
func TestEveryFieldIsCarried(t *testing.T) {
	var want meter.Observed
	storetest.Fill(&want)
	got, err := decode(encode(time.Unix(5, 0), []meter.Observed{want}))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]meter.Observed{want}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestQueueIsBoundedAndExact puts in anything while the controller comes and goes: what waits stays within its bounds, and by
// zone pair every byte leaves once, and is believed as it was. Journals in between change nothing.
func TestQueueIsBoundedAndExact(t *testing.T) {
	type pair struct {
		client, server string
		v6             bool
		observer       meter.Observer
		node           string // of a client of whom another tells: there may be a meter
	}
	pairOf := func(f meter.Observed) pair {
		p := pair{f.Client.Zone, f.Server.Zone, f.V6, f.Observer, ""}
		if f.Observer == meter.AtServer {
			p.node = f.Client.Node
		}
		return p
	}
	rapid.Check(t, func(t *rapid.T) {
		q := queue{epoch: 7, next: 1, maxTimes: 3, maxFlows: 40}
		in, out := map[pair]uint64{}, map[pair]uint64{}
		now, received := time.Unix(1_800_000_000, 0), uint64(0)
		drain := func() {
			q.fix()
			for b, ok := q.after(received); ok; b, ok = q.after(received) {
				if b.Sequence != received+1 {
					t.Fatalf("batch %d follows %d", b.Sequence, received)
				}
				received = b.Sequence
				flows, err := decode(b.Batch)
				if err != nil {
					t.Fatal(err)
				}
				for _, f := range flows {
					out[pairOf(f)] += f.RequestBytes
				}
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				flows := rapid.SliceOfN(rapid.Custom(anyFlow), 0, 30).Draw(t, "flows")
				for _, f := range flows {
					in[pairOf(f)] += f.RequestBytes
				}
				now = now.Add(time.Duration(rapid.IntRange(-20, 100).Draw(t, "seconds")) * time.Second)
				q.put(now, flows, []byte("mark"))
			},
			"send":    func(*rapid.T) { drain() },
			"confirm": func(*rapid.T) { q.confirm(received) },
			"restart": func(t *rapid.T) {
				again := queue{maxTimes: q.maxTimes, maxFlows: q.maxFlows}
				if err := again.restore(q.journal()); err != nil {
					t.Fatal(err)
				}
				if again.next != q.next || again.epoch != q.epoch || string(again.mark) != string(q.mark) || again.size() != q.size() || len(again.sent) != len(q.sent) {
					t.Fatalf("a journal gives back %+v of %+v", again, q)
				}
				q = again
			},
			"": func(t *rapid.T) {
				if len(q.waiting) > 3 || len(q.sent) > window || q.size() > 40+2*4*4*2*(2+31) {
					t.Fatalf("%d times with %d flows wait, %d are on their way", len(q.waiting), q.size(), len(q.sent))
				}
			},
		})
		for q.size() > 0 {
			drain()
			q.confirm(received)
		}
		drain()
		for p, want := range in {
			if out[p] != want {
				t.Errorf("%v: %d bytes left of %d", p, out[p], want)
			}
		}
	})
}

func TestDamagedJournalIsPutAside(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	for name, data := range map[string][]byte{
		"no protobuf":   []byte("\xff\xff\xff"),
		"names nothing": marshal(t, &Journal{Epoch: 1, Next: 9, Mark: []byte("m"), Waiting: []*Batch{{Flows: []*Flow{{Client: 4}}}}}),
	} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		noticed := 0
		c, err := NewClient(nil, ClientOptions{Node: "n", Journal: path, Notice: func(error) { noticed++ }})
		if err != nil {
			t.Fatal(err)
		}
		if c.Mark() != nil || c.queue.next != 1 || noticed != 1 {
			t.Errorf("%s: the client goes on with mark %q and batch %d, having noticed %d things", name, c.Mark(), c.queue.next, noticed)
		}
		if _, err := os.Stat(path + ".bad"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func marshal(t *testing.T, m proto.Message) []byte {
	data, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
