package study

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// A plot is a small SVG: points or lines of some series over two axes. It
// has the page's colours in a light and a dark look, as the reader's.
type plot struct {
	title, x, y string
	ticksX      []tick
	ticksY      []tick
	series      []series
	top         float64 // of y; 0 is the bottom
	right       float64 // of x; 0 is the left
	mark        float64 // a dashed line at this y; 0: none
	markName    string
}

type tick struct {
	at   float64
	name string
}

type series struct {
	name   string
	class  string // of colour: a, b, c, d
	line   bool
	points [][2]float64
}

const (
	plotWidth, plotHeight                    = 720, 360
	plotLeft, plotRight, plotTop, plotBottom = 64, 48, 72, 52
)

const plotStyle = `
  .paper { fill: #ffffff } svg { font: 13px system-ui, "DejaVu Sans", sans-serif }
  text { fill: #13202b } .soft { fill: #566472 } .grid { stroke: #dde4ea } .axis { stroke: #566472 } .mark { stroke: #566472; stroke-dasharray: 5 4 }
  .a { fill: #0b7285; stroke: #0b7285 } .b { fill: #c2410c; stroke: #c2410c } .c { fill: #6741d9; stroke: #6741d9 } .d { fill: #8a97a3; stroke: #8a97a3 }
  polyline { fill: none !important; stroke-width: 1.8 } circle { stroke: none; fill-opacity: .75 }
  @media (prefers-color-scheme: dark) {
    .paper { fill: #0b1217 }
    text { fill: #e7eef3 } .soft { fill: #94a5b3 } .grid { stroke: #22303a } .axis { stroke: #94a5b3 } .mark { stroke: #94a5b3 }
    .a { fill: #4fc3d7; stroke: #4fc3d7 } .b { fill: #ff9a62; stroke: #ff9a62 } .c { fill: #b49bff; stroke: #b49bff } .d { fill: #7c8d9b; stroke: #7c8d9b }
  }
`

func (p *plot) at(x, y float64) (float64, float64) {
	return plotLeft + x/p.right*(plotWidth-plotLeft-plotRight), plotHeight - plotBottom - y/p.top*(plotHeight-plotTop-plotBottom)
}

// String draws it.
func (p *plot) String() string {
	var b strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	say(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-label="%s">`, plotWidth, plotHeight, plotWidth, plotHeight, p.title)
	say(`<title>%s</title><style>%s</style>`, p.title, plotStyle)
	say(`<rect class="paper" width="%d" height="%d"/>`, plotWidth, plotHeight)
	say(`<text x="%d" y="24" font-size="15" font-weight="600">%s</text>`, plotLeft, p.title)
	left := float64(plotLeft)
	for _, s := range p.series {
		say(`<circle class="%s" cx="%.0f" cy="44" r="5"/><text x="%.0f" y="48">%s</text>`, s.class, left+5, left+15, s.name)
		left += 34 + 7.4*float64(len([]rune(s.name)))
	}
	for _, t := range p.ticksY {
		x, y := p.at(0, t.at)
		say(`<line class="grid" x1="%.1f" y1="%.1f" x2="%d" y2="%.1f"/><text class="soft" x="%.1f" y="%.1f" text-anchor="end">%s</text>`, x, y, plotWidth-plotRight, y, x-6, y+4, t.name)
	}
	for _, t := range p.ticksX {
		x, y := p.at(t.at, 0)
		say(`<text class="soft" x="%.1f" y="%.1f" text-anchor="middle">%s</text>`, x, y+18, t.name)
	}
	x0, y0 := p.at(0, 0)
	say(`<line class="axis" x1="%.1f" y1="%.1f" x2="%d" y2="%.1f"/>`, x0, y0, plotWidth-plotRight, y0)
	if p.mark > 0 {
		_, y := p.at(0, p.mark)
		say(`<line class="mark" x1="%d" y1="%.1f" x2="%d" y2="%.1f"/><text class="soft" x="%d" y="%.1f">%s</text>`, plotLeft, y, plotWidth-plotRight, y, plotWidth-plotRight+6, y+4, p.markName)
	}
	for _, s := range p.series {
		if s.line {
			var points []string
			for _, xy := range s.points {
				x, y := p.at(xy[0], min(xy[1], p.top))
				points = append(points, fmt.Sprintf("%.1f,%.1f", x, y))
			}
			say(`<polyline class="%s" points="%s"/>`, s.class, strings.Join(points, " "))
			continue
		}
		for _, xy := range s.points {
			x, y := p.at(xy[0], min(xy[1], p.top))
			say(`<circle class="%s" cx="%.1f" cy="%.1f" r="3.2"/>`, s.class, x, y)
		}
	}
	say(`<text class="soft" x="%d" y="%d" text-anchor="middle">%s</text>`, (plotLeft+plotWidth-plotRight)/2, plotHeight-12, p.x)
	say(`<text class="soft" transform="translate(16 %d) rotate(-90)" text-anchor="middle">%s</text>`, (plotTop+plotHeight-plotBottom)/2, p.y)
	say(`</svg>`)
	return b.String()
}

// steps are about n ticks from 0 to top.
func steps(top float64, n int, name func(float64) string) (ticks []tick) {
	step := math.Pow(10, math.Floor(math.Log10(top/float64(n))))
	for _, times := range []float64{1, 2, 5, 10} {
		if top/(step*times) <= float64(n) {
			step *= times
			break
		}
	}
	for i := 0; float64(i)*step <= top*1.0001; i++ {
		ticks = append(ticks, tick{float64(i) * step, name(float64(i) * step)})
	}
	return ticks
}

func plain(x float64) string { return fmt.Sprintf("%.0f", x) }

func inPercent(x float64) string { return fmt.Sprintf("%.0f %%", 100*x) }

// Plots are the document's, by their files' names.
func (d *Document) Plots() map[string]string {
	return map[string]string{
		"utilisation.svg": d.utilisation().String(), "crowd.svg": d.crowd().String(),
		"beyond.svg": d.beyond().String(), "messages.svg": d.messages().String(),
	}
}

// utilisation has a point for each cell at a load of 1 and 2, by limit.
func (d *Document) utilisation() *plot {
	p := &plot{title: "Utilisation at load 1 and 2, each cell a point", x: "limit", y: "of the lesser of demand and limit", top: 1.1, right: float64(len(Limits)), mark: enough, markName: "95 %", ticksY: steps(1, 5, inPercent)}
	names := []string{"Tributary", "equal shares", "broadcast, without what it admits beyond"}
	for i, name := range names {
		s := series{name: name, class: string(rune('a' + i))}
		for k, l := range Limits {
			shown := d.values(func(r *Result) (float64, bool) {
				of := []*Outcome{&r.Tributary, &r.Static, &r.Broadcast}[i]
				return of.Utilisation, r.Limit.Rate == l.Rate && r.Load >= 1
			})
			for n, v := range shown {
				at := float64(k) + 0.12 + 0.27*float64(i) + 0.2*float64(n*7%len(shown))/float64(len(shown))
				s.points = append(s.points, [2]float64{at, v})
			}
			if i == 0 {
				p.ticksX = append(p.ticksX, tick{float64(k) + 0.5, l.Rate})
			}
		}
		p.series = append(p.series, s)
	}
	return p
}

// crowd is the course of the flash crowd at half the limit of 1000/s, four
// tiers.
func (d *Document) crowd() *plot {
	i := slices.IndexFunc(d.Results, func(r Result) bool {
		return r.Shape == Crowd && r.Limit.Rate == "1000/s" && r.Load == 0.5 && r.Tree.Tiers() == 4
	})
	p := &plot{title: "A flash crowd in one city, 1000/s over 4 tiers, load 0.5", x: "seconds from the crowd's coming", y: "checks a second in the city", right: 4, top: 1}
	if i < 0 {
		return p
	}
	r := &d.Results[i]
	const before, span, smooth = time.Second, 4 * time.Second, 5 // bins
	begin := r.crowd()
	even := r.Load * 1000 / float64(r.Tree.Leaves())
	p.top = 1.3 * crowdTimes * even
	asked := series{name: "asked for, and due", class: "d", line: true, points: [][2]float64{{0, even}, {1, even}, {1, crowdTimes * even}, {4, crowdTimes * even}}}
	p.series = append(p.series, asked)
	for n, way := range []struct {
		name string
		of   *Outcome
	}{{"Tributary", &r.Tributary}, {"equal shares", &r.Static}, {"broadcast", &r.Broadcast}} {
		s := series{name: way.name, class: string(rune('a' + n)), line: true}
		first := int((begin - before) / bin)
		for at := first; at < first+int(span/bin); at += smooth {
			sum := int64(0)
			for _, v := range way.of.city[at : at+smooth] {
				sum += v
			}
			s.points = append(s.points, [2]float64{(time.Duration(at-first+smooth/2) * bin).Seconds(), float64(sum) / (smooth * bin).Seconds()})
		}
		p.series = append(p.series, s)
	}
	p.ticksY = steps(p.top, 8, plain)
	for i := range 9 {
		p.ticksX = append(p.ticksX, tick{float64(i) / 2, fmt.Sprintf("%.1f", float64(i)/2-1)})
	}
	return p
}

// beyond is what the broadcast admits beyond the limit, by cities.
func (d *Document) beyond() *plot {
	p := &plot{title: "Admitted beyond the limit at load 2, steady and moving demand", x: "cities", y: "of the limit", right: 72, top: 0.05}
	ours, theirs := series{name: "Tributary", class: "a"}, series{name: "broadcast", class: "c"}
	for i := range d.Results {
		r := &d.Results[i]
		if n := float64(r.Tree.Leaves()); r.Load == 2 && n <= p.right {
			ours.points = append(ours.points, [2]float64{n - 0.6, r.Tributary.Over})
			theirs.points = append(theirs.points, [2]float64{n + 0.6, r.Broadcast.Over})
			p.top = max(p.top, 1.1*r.Broadcast.Over)
		}
	}
	p.series = []series{ours, theirs}
	p.ticksY = steps(p.top, 8, inPercent)
	for _, t := range Trees {
		p.ticksX = append(p.ticksX, tick{float64(t.Leaves()), plain(float64(t.Leaves()))})
	}
	return p
}

// messages are those of the whole tree, by its places.
func (d *Document) messages() *plot {
	p := &plot{title: "Messages a second, limits of 1000/s and 1000000/s", x: "places", y: "messages a second, in all", right: 96, top: 10}
	ours, theirs := series{name: "Tributary", class: "a"}, series{name: "broadcast", class: "c"}
	for i := range d.Results {
		r := &d.Results[i]
		if n := float64(r.Tree.Places()); strings.HasPrefix(r.Limit.Rate, "1000") && n <= p.right {
			ours.points = append(ours.points, [2]float64{n - 0.8, r.Tributary.Messages})
			theirs.points = append(theirs.points, [2]float64{n + 0.8, r.Broadcast.Messages})
			p.top = max(p.top, 1.1*r.Broadcast.Messages, 1.1*r.Tributary.Messages)
		}
	}
	p.series = []series{ours, theirs}
	p.ticksY = steps(p.top, 8, plain)
	for _, t := range Trees {
		p.ticksX = append(p.ticksX, tick{float64(t.Places()), plain(float64(t.Places()))})
	}
	return p
}
