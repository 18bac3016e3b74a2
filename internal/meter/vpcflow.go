package meter

import (
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/zonewise/zonewise/internal/model"
)

// Record is a line of a VPC flow log, version 2: what went one way in an interval.
// https://docs.aws.amazon.com/vpc/latest/userguide/flow-log-records.html
type Record struct {
	Account, Interface  string         // empty: not known
	Source, Destination netip.AddrPort // a zero address or port is not known
	Protocol            model.Protocol // 0: not known
	Packets             uint64         // on the wire
	Bytes               uint64         // on the wire, IP headers included
	Start, End          time.Time      // printed in seconds since 1970
	Status              LogStatus
}

// LogStatus tells what a record is about.
type LogStatus string

// The statuses. The empty one is LogOK.
const (
	LogOK      LogStatus = "OK"
	LogNothing LogStatus = "NODATA"   // nothing went in the interval
	LogSkipped LogStatus = "SKIPDATA" // something went that no record tells of
)

// String prints the fourteen fields of the format, with a space between: version, account-id,
// interface-id, srcaddr, dstaddr, srcport, dstport, protocol, packets, bytes, start, end, action,
// log-status. What is not known is "-"; what was counted was let through, so action is ACCEPT.
func (r Record) String() string {
	out := []string{"2", word(r.Account), word(r.Interface), "-", "-", "-", "-", "-", "-", "-",
		strconv.FormatInt(r.Start.Unix(), 10), strconv.FormatInt(r.End.Unix(), 10), "-", string(LogOK)}
	if r.Status != "" && r.Status != LogOK {
		out[13] = string(r.Status)
		return strings.Join(out, " ")
	}
	out[3], out[5] = ends(r.Source)
	out[4], out[6] = ends(r.Destination)
	out[7] = known(uint64(r.Protocol))
	out[8], out[9] = strconv.FormatUint(r.Packets, 10), strconv.FormatUint(r.Bytes, 10)
	out[12] = "ACCEPT"
	return strings.Join(out, " ")
}

func ends(a netip.AddrPort) (addr, port string) {
	addr = "-"
	if a.Addr().IsValid() {
		addr = a.Addr().Unmap().WithZone("").String()
	}
	return addr, known(uint64(a.Port()))
}

func known(v uint64) string {
	if v == 0 {
		return "-"
	}
	return strconv.FormatUint(v, 10)
}

// word makes one field of a text.
func word(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) || unicode.IsControl(r) {
			return '_'
		}
		return r
	}, s)
	if s == "" {
		return "-"
	}
	return s
}

// Records returns what one counter counted as records, one for each way in which packets went. r gives
// account, interface and times. The client's port is not known: a counter is for all of them.
func (d Delta) Records(r Record) []Record {
	return records(r, netip.AddrPortFrom(d.Client, 0), d.Server, d.Protocol, d.FlowCount)
}

// Records returns what a flow says as records. Flows have no addresses, nor the server's port where
// a Service was dialled.
func Records(f model.Flow, r Record) []Record {
	var server netip.AddrPort
	if f.Service == (model.Name{}) {
		server = netip.AddrPortFrom(netip.Addr{}, f.Port)
	}
	return records(r, netip.AddrPort{}, server, f.Protocol, f.FlowCount)
}

func records(r Record, client, server netip.AddrPort, proto model.Protocol, c model.FlowCount) []Record {
	var out []Record
	r.Protocol = proto
	if c.RequestPackets > 0 || c.RequestBytes > 0 {
		r.Source, r.Destination, r.Packets, r.Bytes = client, server, c.RequestPackets, c.RequestBytes+c.RequestExtra
		out = append(out, r)
	}
	if c.ResponsePackets > 0 || c.ResponseBytes > 0 {
		r.Source, r.Destination, r.Packets, r.Bytes = server, client, c.ResponsePackets, c.ResponseBytes+c.ResponseExtra
		out = append(out, r)
	}
	return out
}
