package main

import (
	"fmt"
	"html"
	"strconv"
	"strings"
)

// tenths is a place or a length in a picture, in tenths of a pixel.
type tenths int

const (
	px    tenths = 10
	width        = 760 * px
)

// String returns the length in pixels, as SVG has it: "12.3".
func (n tenths) String() string {
	if n < 0 {
		return "-" + (-n).String()
	}
	s := strconv.Itoa(int(n / px))
	if n%px != 0 {
		s += "." + strconv.Itoa(int(n%px))
	}
	return s
}

// style has the colours for light and for dark surroundings. What was refused is told apart by its
// place or shape too, not by colour alone. The paper is painted, since a reader's page may be light
// while the system is dark.
const style = `text{font:12px system-ui,-apple-system,"Segoe UI",Helvetica,Arial,sans-serif;fill:#1f2328}
text.soft{fill:#59636e}text.small{font-size:11px;fill:#59636e}text.strong{font-weight:600}
.paper{fill:#fff;stroke:#d1d9e0}
path{fill:none;stroke-width:1.5}
.grid{stroke:#d1d9e0;stroke-width:1}.edge{stroke:#818b98;stroke-width:1;stroke-dasharray:2 3}
.limit{stroke:#1f2328;stroke-width:1;stroke-dasharray:6 4}.mark{stroke:#59636e;stroke-width:1}
.asked{stroke:#59636e}.yes{stroke:#0969da}.no{stroke:#d1570c}
.level{stroke:#0969da}.area{fill:#0969da;fill-opacity:.14;stroke:none}
.spent{fill:#0969da;fill-opacity:.55;stroke:none}.held{fill:#0969da;fill-opacity:.16;stroke:none}
.before{fill:#8250df;fill-opacity:.22;stroke:none}
.bar{fill:#0969da;fill-opacity:.2;stroke:#0969da}.lost{fill:#0969da;fill-opacity:.07;stroke:#0969da;stroke-dasharray:4 3}
@media (prefers-color-scheme:dark){
text{fill:#e6edf3}text.soft,text.small{fill:#9198a1}
.paper{fill:#0d1117;stroke:#3d444d}
.grid{stroke:#3d444d}.edge{stroke:#656c76}.limit{stroke:#e6edf3}.mark{stroke:#9198a1}
.asked{stroke:#9198a1}.yes,.level{stroke:#4493f8}.no{stroke:#f0883e}
.area,.spent,.held{fill:#4493f8}.area{fill-opacity:.2}.held{fill-opacity:.24}.before{fill:#ab7df8;fill-opacity:.32}
.bar{fill:#4493f8;fill-opacity:.3;stroke:#4493f8}.lost{fill:#4493f8;fill-opacity:.1;stroke:#4493f8}
}`

// canvas collects the elements of one picture.
type canvas struct {
	elements strings.Builder
	style    string // beside that of all
}

func (c *canvas) add(format string, args ...any) { fmt.Fprintf(&c.elements, format+"\n", args...) }

// Where a text hangs.
const (
	start  = "start"
	middle = "middle"
	end    = "end"
)

func (c *canvas) text(x, y tenths, anchor, class, s string) {
	c.add(`<text class="%s" x="%v" y="%v" text-anchor="%s">%s</text>`, class, x, y, anchor, html.EscapeString(s))
}

func (c *canvas) bar(class string, x, y, w, h tenths) {
	c.add(`<rect class="%s" x="%v" y="%v" width="%v" height="%v" rx="3"/>`, class, x, y, w, h)
}

func (c *canvas) path(class, d string) { c.add(`<path class="%s" d="%s"/>`, class, d) }

func (c *canvas) horizontal(class string, x1, x2, y tenths) {
	c.path(class, fmt.Sprintf("M%v %vH%v", x1, y, x2))
}

func (c *canvas) vertical(class string, x, y1, y2 tenths) {
	c.path(class, fmt.Sprintf("M%v %vV%v", x, y1, y2))
}

// bracket spans x1…x2 from above, with feet.
func (c *canvas) bracket(class string, x1, x2, y tenths) {
	c.path(class, fmt.Sprintf("M%v %vv-4H%vv4", x1, y+4*px, x2))
}

// arrow points from x1 to x2 > x1.
func (c *canvas) arrow(class string, x1, x2, y tenths) {
	c.path(class, fmt.Sprintf("M%v %vH%vm-4 -3l4 3l-4 3", x1, y, x2))
}

// svg returns the picture. The description is read to those who do not see it.
func (c *canvas) svg(height tenths, title, description string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %v %v" width="%v" height="%v" role="img">`+"\n",
		width, height, width, height)
	fmt.Fprintf(&b, "<title>%s</title>\n<desc>%s</desc>\n", html.EscapeString(title), html.EscapeString(description))
	b.WriteString("<!-- Drawn by docs/algorithms; run make generate. -->\n<style>" + style + c.style + "</style>\n")
	fmt.Fprintf(&b, `<rect class="paper" x="0.5" y="0.5" width="%v" height="%v" rx="6"/>`+"\n", width-px, height-px)
	b.WriteString(c.elements.String() + "</svg>\n")
	return b.String()
}

// point is a place in a picture.
type point struct{ x, y tenths }

// line returns the path through points, without those that lie on the way.
func line(points []point) string {
	var b strings.Builder
	for i, p := range simplified(points) {
		command := "L"
		if i == 0 {
			command = "M"
		}
		fmt.Fprintf(&b, "%s%v %v", command, p.x, p.y)
	}
	return b.String()
}

// simplified leaves points out that are no more than a tenth of a pixel away from the straight line
// between those that stay (Ramer, Douglas and Peucker's way).
func simplified(points []point) []point {
	if len(points) < 3 {
		return points
	}
	first, last := points[0], points[len(points)-1]
	dx, dy := int64(last.x-first.x), int64(last.y-first.y)
	farthest, most := 0, int64(0)
	for i, p := range points[1 : len(points)-1] {
		x, y := int64(p.x-first.x), int64(p.y-first.y)
		away := dx*y - dy*x // times the length of the line; squared below
		if dx == 0 && dy == 0 {
			away = x*x + y*y
		}
		if away = max(away, -away); away > most {
			farthest, most = i+1, away
		}
	}
	if most*most <= dx*dx+dy*dy {
		return []point{first, last}
	}
	left := simplified(points[:farthest+1])
	return append(left[:len(left)-1:len(left)-1], simplified(points[farthest:])...)
}
