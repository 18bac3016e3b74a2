// Package plot draws the tables of the simulator as SVG.
package plot

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"

	"github.com/zonewise/zonewise/internal/simulate"
)

// point is one algorithm in a picture.
type point struct {
	label string
	x, y  float64
}

// Write draws one picture a table into a folder, which it makes, and returns the files' names.
func Write(dir string, r simulate.Result, maxOverload float64) ([]string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("plot: %w", err)
	}
	var names []string
	write := func(name string, p *plot.Plot) error {
		svg, err := draws(p)
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
		p, err := scenario(s, maxOverload)
		if err != nil {
			return nil, err
		}
		if err := write(fmt.Sprintf("%s-pods-%s.svg", s.Pods, s.Placement), p); err != nil {
			return nil, err
		}
	}
	if len(r.Walk) == 0 {
		return names, nil
	}
	p, err := walk(r.Walk)
	if err != nil {
		return nil, err
	}
	return names, write("walk.svg", p)
}

// scenario shows what is gained against what it is paid with: in-zone share over load.
func scenario(s simulate.Scenario, maxOverload float64) (*plot.Plot, error) {
	points := make([]point, len(s.Rows))
	for i, r := range s.Rows {
		points[i] = point{label(r.Algorithm, r.NodesPerZone), r.LoadP99, 100 * r.InZone}
	}
	p, err := picture(points)
	if err != nil {
		return nil, fmt.Errorf("plot: %w", err)
	}
	p.Title.Text = fmt.Sprintf("%s pods, %s placement", s.Pods, s.Placement)
	p.X.Label.Text, p.Y.Label.Text = "load of the most loaded endpoint, 99th percentile (1: fair share)", "connections in their zone (%)"
	return p, mark(p, 1+maxOverload)
}

// walk shows the same for walks: in-zone share over the connections that a change moves.
func walk(rows []simulate.WalkRow) (*plot.Plot, error) {
	points := make([]point, len(rows))
	for i, r := range rows {
		points[i] = point{label(r.Algorithm, r.NodesPerZone), 100 * r.Moved, 100 * r.InZone}
	}
	p, err := picture(points)
	if err != nil {
		return nil, fmt.Errorf("plot: %w", err)
	}
	p.Title.Text = "A walking autoscaler, a lost node and a lost zone"
	p.X.Label.Text, p.Y.Label.Text = "connections that a change moves (%)", "connections in their zone (%)"
	return p, nil
}

func label(algorithm string, nodes int) string {
	if nodes == 0 {
		return algorithm
	}
	return fmt.Sprintf("%s, %d nodes/zone", algorithm, nodes)
}

// picture has a shape for each point, told apart by a legend: labels beside points would overlap.
func picture(points []point) (*plot.Plot, error) {
	p := plot.New()
	p.Y.Min, p.Y.Max = 0, 100
	p.X.Min = 0
	p.Add(plotter.NewGrid())
	shapes := []draw.GlyphDrawer{draw.CircleGlyph{}, draw.SquareGlyph{}, draw.TriangleGlyph{}, draw.CrossGlyph{}, draw.PlusGlyph{},
		draw.RingGlyph{}, draw.BoxGlyph{}, draw.PyramidGlyph{}}
	for i, at := range points {
		s, err := plotter.NewScatter(plotter.XYs{{X: at.x, Y: at.y}})
		if err != nil {
			return nil, err
		}
		s.Shape, s.Color, s.Radius = shapes[i%len(shapes)], colour(i), vg.Points(4)
		p.Add(s)
		p.Legend.Add(at.label, s)
	}
	return p, nil
}

// mark draws the bound.
func mark(p *plot.Plot, bound float64) error {
	l, err := plotter.NewLine(plotter.XYs{{X: bound, Y: p.Y.Min}, {X: bound, Y: p.Y.Max}})
	if err != nil {
		return fmt.Errorf("plot: %w", err)
	}
	l.Dashes = []vg.Length{vg.Points(4), vg.Points(3)}
	p.Add(l)
	p.Legend.Add("bound", l)
	return nil
}

func draws(p *plot.Plot) ([]byte, error) {
	c := vgsvg.New(8*vg.Inch, 5*vg.Inch)
	p.Draw(draw.New(c))
	var b bytes.Buffer
	_, err := c.WriteTo(&b)
	return b.Bytes(), err
}
