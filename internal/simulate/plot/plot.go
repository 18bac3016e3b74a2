// Package plot draws the tables of the simulator as SVG.
package plot

import (
	"bytes"
	"fmt"
	"image/color"
	"os"
	"path/filepath"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"

	"github.com/zonewise/zonewise/internal/simulate"
)

// panel is one figure of every algorithm, as bars beside each other's names.
type panel struct {
	title  string
	names  []string // from top to bottom
	values []float64
	format func(float64) string
	mark   float64 // a line across the bars; 0: none
	fill   color.Color
}

// Colours that people who see few can tell apart (Okabe and Ito, 2008).
func blue() color.Color   { return color.RGBA{86, 180, 233, 255} }
func orange() color.Color { return color.RGBA{230, 159, 0, 255} }

// Write draws one picture a table into a folder, which it makes, and returns the files' names.
func Write(dir string, r simulate.Result, maxOverload float64) ([]string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("plot: %w", err)
	}
	var names []string
	write := func(name string, panels ...panel) error {
		svg, err := picture(panels)
		if err != nil {
			return fmt.Errorf("plot %s: %w", name, err)
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, svg, 0o644); err != nil {
			return fmt.Errorf("plot: %w", err)
		}
		names = append(names, path)
		return nil
	}
	for _, s := range r.Scenarios {
		if err := write(fmt.Sprintf("%s-pods-%s.svg", s.Pods, s.Placement), scenario(s, 1+maxOverload)...); err != nil {
			return nil, err
		}
	}
	if len(r.Walk) == 0 {
		return names, nil
	}
	return names, write("walk.svg", walk(r.Walk)...)
}

// scenario shows what is gained beside what it is paid with.
func scenario(s simulate.Scenario, bound float64) []panel {
	in := panel{title: fmt.Sprintf("%s pods, %s: connections in zone (%%)", s.Pods, s.Placement), format: decimals(1), fill: blue()}
	load := panel{title: "load of the most loaded endpoint, p99", format: decimals(2), fill: orange(), mark: bound}
	for _, r := range s.Rows {
		name := label(r.Algorithm, r.NodesPerZone)
		in.names, load.names = append(in.names, name), append(load.names, name)
		in.values, load.values = append(in.values, 100*r.InZone), append(load.values, r.LoadP99)
	}
	return []panel{in, load}
}

func walk(rows []simulate.WalkRow) []panel {
	in := panel{title: "walking autoscaler: connections in zone (%)", format: decimals(1), fill: blue()}
	moved := panel{title: "connections that a change moves (%)", format: decimals(1), fill: orange()}
	for _, r := range rows {
		name := label(r.Algorithm, r.NodesPerZone)
		in.names, moved.names = append(in.names, name), append(moved.names, name)
		in.values, moved.values = append(in.values, 100*r.InZone), append(moved.values, 100*r.Moved)
	}
	return []panel{in, moved}
}

func label(algorithm string, nodes int) string {
	if nodes == 0 {
		return algorithm
	}
	return fmt.Sprintf("%s, %d nodes", algorithm, nodes)
}

func decimals(n int) func(float64) string {
	return func(f float64) string { return strconv.FormatFloat(f, 'f', n, 64) }
}

// picture puts panels side by side.
func picture(panels []panel) ([]byte, error) {
	rows := make([]*plot.Plot, len(panels))
	for i, p := range panels {
		var err error
		if rows[i], err = p.draw(); err != nil {
			return nil, err
		}
	}
	height := vg.Points(70 + 24*float64(len(panels[0].names)))
	canvas := vgsvg.New(vg.Points(520*float64(len(panels))), height)
	tiles := draw.Tiles{Rows: 1, Cols: len(panels), PadX: vg.Points(24), PadTop: 8, PadBottom: 8, PadLeft: vg.Points(24), PadRight: vg.Points(24)}
	for i, c := range plot.Align([][]*plot.Plot{rows}, tiles, draw.New(canvas))[0] {
		rows[i].Draw(c)
	}
	var b bytes.Buffer
	if _, err := canvas.WriteTo(&b); err != nil {
		return nil, err
	}
	// Who lacks the font takes one that is about as wide.
	return bytes.ReplaceAll(b.Bytes(), []byte("font-family:Liberation Sans"), []byte("font-family:Liberation Sans,Arial,Helvetica,sans-serif")), nil
}

// room is left after a name, for who draws it in a wider font.
const room = "      "

func (p panel) draw() (*plot.Plot, error) {
	out := plot.New()
	out.Title.Text = p.title
	n := len(p.names)
	values, names, ends := make(plotter.Values, n), make([]string, n), plotter.XYLabels{}
	most := p.mark
	for i, v := range p.values { // an axis counts from below
		values[n-1-i], names[n-1-i] = v, p.names[i]+room
		ends.XYs = append(ends.XYs, plotter.XY{X: v, Y: float64(n - 1 - i)})
		ends.Labels = append(ends.Labels, p.format(v))
		most = max(most, v)
	}
	bars, err := plotter.NewBarChart(values, vg.Points(13))
	if err != nil {
		return nil, err
	}
	bars.Horizontal, bars.Color, bars.LineStyle.Width = true, p.fill, 0
	labels, err := plotter.NewLabels(ends)
	if err != nil {
		return nil, err
	}
	labels.Offset.X = vg.Points(4)
	for i := range labels.TextStyle {
		labels.TextStyle[i].YAlign = text.YCenter
		labels.TextStyle[i].Font.Variant = "Sans"
	}
	out.Add(bars, labels)
	if p.mark > 0 {
		line, err := plotter.NewLine(plotter.XYs{{X: p.mark, Y: -.5}, {X: p.mark, Y: float64(n) - .5}})
		if err != nil {
			return nil, err
		}
		line.Dashes = []vg.Length{vg.Points(4), vg.Points(3)}
		out.Add(line)
	}
	out.NominalY(names...)
	out.X.Min, out.X.Max, out.Y.Min, out.Y.Max = 0, max(most*1.15, 1), -.6, float64(n)-.4
	for _, style := range []*text.Style{&out.Title.TextStyle, &out.X.Tick.Label, &out.Y.Tick.Label} {
		style.Font.Variant = "Sans"
	}
	return out, nil
}
