package bench

import (
	"bytes"
	"fmt"
	"image/color"
	"os"
	"path/filepath"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"

	"github.com/zonewise/zonewise/lab/rig/peer"
)

// pictures are the figures that are drawn over the number of Services.
func pictures() []struct{ file, benchmark, metric, unit string } {
	return []struct{ file, benchmark, metric, unit string }{
		{"connect.svg", "connect", podToService, "µs, median"},
		{"cold-start.svg", "cold-start", "until all answer", "s"},
		{"programming.svg", "programming", changeToConnect, "ms, median"},
		{"memory.svg", "memory", pss, "MB"},
	}
}

// colour of a peer: ones that people who see few can tell apart (Okabe and Ito, 2008).
func colour(k peer.Kind) color.Color {
	return map[peer.Kind]color.Color{
		peer.Direct: color.RGBA{0, 0, 0, 255}, peer.DirectConntrack: color.RGBA{130, 130, 130, 255},
		peer.Zonewise: color.RGBA{0, 114, 178, 255}, peer.ZonewiseNFT: color.RGBA{86, 180, 233, 255},
		peer.KubeProxyNFT: color.RGBA{213, 94, 0, 255}, peer.KubeProxyIPTables: color.RGBA{230, 159, 0, 255},
	}[k]
}

// plot draws what there is, each figure into a file of the folder, and returns the files' names.
func (r Result) plot(dir string) (names []string, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	for _, p := range pictures() {
		svg, err := r.picture(p.benchmark, p.metric, p.unit)
		if err != nil {
			return names, fmt.Errorf("%s: %w", p.file, err)
		}
		if svg == nil {
			continue
		}
		name := filepath.Join(dir, p.file)
		if err := os.WriteFile(name, svg, 0o644); err != nil {
			return names, err
		}
		names = append(names, name)
	}
	return names, nil
}

// picture is a line for each peer, both axes logarithmic; nil if there is nothing to draw.
func (r Result) picture(benchmark, metric, unit string) ([]byte, error) {
	out := plot.New()
	out.Title.Text, out.X.Label.Text, out.Y.Label.Text = benchmark+": "+metric, "Services", unit
	out.X.Scale, out.Y.Scale = plot.LogScale{}, plot.LogScale{}
	out.X.Tick.Marker, out.Y.Tick.Marker = plot.LogTicks{Prec: -1}, plot.LogTicks{Prec: -1}
	out.Legend.Top, out.Legend.Left = true, true
	empty := true
	for _, k := range peer.Kinds() {
		var points plotter.XYs
		for _, row := range r.Rows {
			if row.Benchmark == benchmark && row.Metric == metric && row.Peer == string(k) && row.Note == "" && row.Median > 0 && row.Services > 0 {
				points = append(points, plotter.XY{X: float64(row.Services), Y: row.Median})
			}
		}
		if len(points) == 0 {
			continue
		}
		empty = false
		line, dots, err := plotter.NewLinePoints(points)
		if err != nil {
			return nil, err
		}
		line.Color, line.Width = colour(k), vg.Points(1.5)
		dots.Color, dots.Shape = colour(k), draw.CircleGlyph{}
		out.Add(line, dots)
		out.Legend.Add(string(k), line, dots)
	}
	if empty {
		return nil, nil
	}
	// A scale of one value only has no length.
	out.Y.Min, out.Y.Max = out.Y.Min*.7, out.Y.Max*3
	out.X.Min, out.X.Max = out.X.Min*.8, out.X.Max*1.25
	for _, style := range []*draw.TextStyle{&out.Title.TextStyle, &out.X.Label.TextStyle, &out.Y.Label.TextStyle, &out.X.Tick.Label, &out.Y.Tick.Label, &out.Legend.TextStyle} {
		style.Font.Variant = "Sans"
	}
	canvas := vgsvg.New(vg.Points(560), vg.Points(360))
	out.Draw(draw.New(canvas))
	var b bytes.Buffer
	if _, err := canvas.WriteTo(&b); err != nil {
		return nil, err
	}
	// Who lacks the font takes one that is about as wide.
	return bytes.ReplaceAll(b.Bytes(), []byte("font-family:Liberation Sans"), []byte("font-family:Liberation Sans,Arial,Helvetica,sans-serif")), nil
}
