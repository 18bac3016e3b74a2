package meter

import (
	"github.com/zonewise/zonewise/internal/model"
)

// Forecast is what bytes would have done: of both directions, between zones that are known.
type Forecast struct {
	Bytes  float64
	InZone float64 // of Bytes
	Money
}

// InZoneShare is the part of the bytes that would have stayed in their zone, 0 to 1; false if there
// are none.
func (f Forecast) InZoneShare() (float64, bool) {
	if f.Bytes == 0 {
		return 0, false
	}
	return f.InZone / f.Bytes, true
}

// Would tells what a Service's bytes would have done, had its connections gone by another matrix: the
// one without us gives what was saved, a plan's what there is to save. Each connection is taken to
// carry the same wherever it goes. What comes from zones that the matrix has no row for goes where it
// went, and so does what went past the choice of an endpoint.
func Would(flows []model.Flow, svc model.Name, v6 bool, m model.Matrix, t Tariff) Forecast {
	var out Forecast
	for _, f := range flows {
		if f.Service != svc || f.V6 != v6 || f.Client.Zone == "" || f.Server.Zone == "" {
			continue
		}
		to := m.Of(f.Client.Zone)
		if len(to) == 0 || !Chosen(f.FlowKey) {
			to = model.Shares{{Zone: f.Server.Zone, Share: 1}}
		}
		for _, s := range to {
			bytes := s.Share * float64(f.Bytes())
			out.Bytes += bytes
			if s.Zone == f.Client.Zone {
				out.InZone += bytes
			}
			whole := t.bytes(f.Client.Zone, s.Zone, f.RequestBytes, f.ResponseBytes)
			out.Add(Money{s.Share * whole.Client, s.Share * whole.Server})
		}
	}
	return out
}
