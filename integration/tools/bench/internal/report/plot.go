package report

import (
	"cmp"
	"fmt"
	"html"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/zfstpl/zfstpl/integration/tools/bench/internal/result"
)

// The plot's measures, in pixels.
const (
	plotWidth, plotHeight         = 760, 460
	plotLeft, plotTop, plotBottom = 70, 40, 60
	plotRight                     = 210 // room for the names
	nameHeight                    = 15
)

// colours tell the contenders apart, on white, for the colour-blind too.
var colours = map[string]string{
	Native: "#0072b2", Command: "#56b4e9", ZFSPlugin: "#d55e00", OverlayZFS: "#e69f00", OverlayExt4: "#999999",
	Btrfs: "#009e73", OverlayBtrfs: "#009e73", Socket: "#cc79a7", Floor: "#000000",
	Builtin: "#332288", EmptyProxy: "#bbbbbb", LogOnly: "#666666",
}

// A series is a contender's line.
type series struct {
	name   string
	points []point
}

type point struct{ x, y float64 }

// plot has both axes logarithmic: clones, and milliseconds.
type plot struct {
	series []series
	xs     []float64 // the numbers of clones
	lowest float64   // powers of ten that the times lie between
	most   float64
}

// Plot writes an SVG of an operation's medians over the number of clones. False
// where there is nothing to be drawn.
func Plot(w io.Writer, s *result.Set, operation string) (bool, error) {
	p := newPlot(rows(s, operation))
	if len(p.series) == 0 {
		return false, nil
	}
	_, err := io.WriteString(w, p.svg(operationTitle(operation)))
	return true, err
}

func newPlot(all []row) plot {
	p := plot{lowest: math.Inf(1), most: math.Inf(-1)}
	for _, name := range present(all) {
		line := series{name: name}
		for _, r := range all {
			if m, ok := r.cells[name]; ok && m.Median > 0 {
				line.points = append(line.points, point{float64(r.clones), m.Median / 1e6})
			}
		}
		if len(line.points) > 0 {
			p.series = append(p.series, line)
		}
	}
	for _, r := range all {
		p.xs = append(p.xs, float64(r.clones))
	}
	for _, line := range p.series {
		for _, at := range line.points {
			p.lowest = min(p.lowest, math.Pow(10, math.Floor(math.Log10(at.y))))
			p.most = max(p.most, math.Pow(10, math.Ceil(math.Log10(at.y))))
		}
	}
	p.most = max(p.most, 10*p.lowest)
	return p
}

// at is where a point lies in the picture.
func (p plot) at(x, y float64) (float64, float64) {
	first, last := p.xs[0], p.xs[len(p.xs)-1]
	across, up := 0.5, math.Log(y/p.lowest)/math.Log(p.most/p.lowest)
	if last > first {
		across = math.Log(x/first) / math.Log(last/first)
	}
	width, height := float64(plotWidth-plotLeft-plotRight), float64(plotHeight-plotTop-plotBottom)
	return plotLeft + across*width, plotTop + (1-up)*height
}

func (p plot) svg(title string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">
<rect width="100%%" height="100%%" fill="white"/>
<text x="%d" y="22" font-size="15">%s: median time over the number of clones</text>
`, plotWidth, plotHeight, plotWidth, plotHeight, plotLeft, html.EscapeString(title))
	p.axes(&b)
	for _, line := range p.series {
		p.line(&b, line)
	}
	p.names(&b)
	b.WriteString("</svg>\n")
	return b.String()
}

// axes draws a grid with its numbers.
func (p plot) axes(b *strings.Builder) {
	left, right := p.xs[0], p.xs[len(p.xs)-1]
	for y := p.lowest; y <= p.most*1.01; y *= 10 {
		x1, at := p.at(left, y)
		x2, _ := p.at(right, y)
		if left == right {
			x1, x2 = plotLeft, plotWidth-plotRight
		}
		fmt.Fprintf(b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#dddddd"/><text x="%.1f" y="%.1f" text-anchor="end">%g ms</text>`+"\n",
			x1, at, x2, at, x1-8, at+4, y)
	}
	for _, x := range p.xs {
		at, bottom := p.at(x, p.lowest)
		fmt.Fprintf(b, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%.1f" stroke="#dddddd"/><text x="%.1f" y="%.1f" text-anchor="middle">%g</text>`+"\n",
			at, plotTop, at, bottom, at, bottom+18, x)
	}
	fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="middle">clones of one template</text>`+"\n",
		(plotLeft+plotWidth-plotRight)/2, plotHeight-18)
}

func (p plot) line(b *strings.Builder, s series) {
	var points []string
	for _, at := range s.points {
		x, y := p.at(at.x, at.y)
		points = append(points, fmt.Sprintf("%.1f,%.1f", x, y))
		fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>`+"\n", x, y, colours[s.name])
	}
	fmt.Fprintf(b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="2"/>`+"\n", strings.Join(points, " "), colours[s.name])
}

// names writes each line's name beside the picture, in the order of their ends
// from above.
func (p plot) names(b *strings.Builder) {
	y := make(map[string]float64)
	var order []string
	for _, s := range p.series {
		last := s.points[len(s.points)-1]
		_, y[s.name] = p.at(last.x, last.y)
		order = append(order, s.name)
	}
	slices.SortStableFunc(order, func(a, b string) int { return cmp.Compare(y[a], y[b]) })
	for i, name := range order {
		at := float64(plotTop + 10 + i*(nameHeight+5))
		fmt.Fprintf(b, `<rect x="%d" y="%.1f" width="14" height="4" fill="%s"/><text x="%d" y="%.1f">%s</text>`+"\n",
			plotWidth-plotRight+18, at-6, colours[name], plotWidth-plotRight+38, at, html.EscapeString(contenderTitle(name)))
	}
}
