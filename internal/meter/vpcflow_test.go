package meter_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/model"
)

func TestFlowLog(t *testing.T) {
	from := meter.Record{Account: "123456789010", Interface: "eni-1235b8ca123456789", Start: time.Unix(1418530010, 0), End: time.Unix(1418530070, 0)}
	count := model.FlowCount{RequestPackets: 20, RequestBytes: 4249, ResponsePackets: 2, ResponseBytes: 100, ResponseExtra: 40}
	d := meter.Delta{Key: meter.Key{Client: netip.MustParseAddr("172.31.16.139"), Server: netip.MustParseAddrPort("172.31.16.21:22"), Protocol: model.TCP}, FlowCount: count}
	nothing, skipped := from, from
	nothing.Status, skipped.Status, skipped.Account = meter.LogNothing, meter.LogSkipped, ""
	web := calls("a", 1)
	web.ResponseBytes, web.ResponsePackets = 0, 0
	direct := web
	direct.Service = model.Name{}
	v6 := d
	v6.Client, v6.Server, v6.Protocol, v6.ResponsePackets, v6.ResponseBytes = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddrPort("[2001:db8::2]:53"), model.UDP, 0, 0
	odd := from
	odd.Account, odd.Interface = "an account", ""

	var lines []string
	for _, r := range [][]meter.Record{d.Records(from), v6.Records(from), {nothing, skipped}, meter.Records(web, odd), meter.Records(direct, odd), meter.Records(model.Flow{}, from)} {
		for _, l := range r {
			lines = append(lines, l.String())
		}
	}
	want := `2 123456789010 eni-1235b8ca123456789 172.31.16.139 172.31.16.21 - 22 6 20 4249 1418530010 1418530070 ACCEPT OK
2 123456789010 eni-1235b8ca123456789 172.31.16.21 172.31.16.139 22 - 6 2 140 1418530010 1418530070 ACCEPT OK
2 123456789010 eni-1235b8ca123456789 2001:db8::1 2001:db8::2 - 53 17 20 4249 1418530010 1418530070 ACCEPT OK
2 123456789010 eni-1235b8ca123456789 - - - - - - - 1418530010 1418530070 - NODATA
2 - eni-1235b8ca123456789 - - - - - - - 1418530010 1418530070 - SKIPDATA
2 an_account - - - - - 6 1 100 1418530010 1418530070 ACCEPT OK
2 an_account - - - - 80 6 1 100 1418530010 1418530070 ACCEPT OK`
	if got := strings.Join(lines, "\n"); got != want {
		t.Errorf("%s", got)
	}
}

// Whatever is in a record, it is fourteen fields, and tools can split them.
func TestFlowLogHasFourteenFields(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := meter.Record{Account: rapid.String().Draw(t, "account"), Interface: rapid.String().Draw(t, "interface"),
			Source:   netip.AddrPortFrom(netip.AddrFrom16([16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "source"))), rapid.Uint16().Draw(t, "port")),
			Protocol: model.Protocol(rapid.Uint8().Draw(t, "protocol")), Bytes: rapid.Uint64().Draw(t, "bytes"), Start: start, End: start,
			Status: rapid.SampledFrom([]meter.LogStatus{"", meter.LogOK, meter.LogNothing, meter.LogSkipped}).Draw(t, "status")}
		if f := strings.Fields(r.String()); len(f) != 14 || f[0] != "2" || strings.Join(f, " ") != r.String() {
			t.Fatalf("%q", r)
		}
	})
}
