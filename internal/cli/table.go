package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/weftmesh/weft/internal/printable"
)

// column is a column of a table, and what becomes of it where the terminal is too narrow: lines that wrap are no table.
type column struct {
	head    string
	spare   int  // columns are left out from the highest number on; those of 0 stay
	elastic bool // what is in it may be cut short; one column of a table at most
}

// cell is one field of a table.
type cell struct {
	text  string
	paint paint
	right bool
}

func text(s string) cell               { return cell{text: printable.Text(s)} }
func painted(p paint, s string) cell   { return cell{text: printable.Text(s), paint: p} }
func number(format string, a any) cell { return cell{text: fmt.Sprintf(format, a), right: true} }

const (
	columnGap    = 3
	leastElastic = 20 // of an elastic column, before others are left out
)

// table prints rows whose columns line up, whatever their colours, and which fit into the terminal if there is one.
func (o *output) table(columns []column, rows [][]cell) {
	t := newTable(columns, rows)
	leftOut := t.fit(terminalWidth(o.out))
	o.row(t, func(i int) cell {
		return cell{text: columns[i].head, paint: dim, right: len(rows) > 0 && rows[0][i].right}
	})
	for _, r := range rows {
		o.row(t, func(i int) cell { return r[i] })
	}
	if len(leftOut) > 0 {
		o.printf("%s\n", o.paint(dim, "not shown, since the terminal is narrow: "+strings.Join(leftOut, ", ")))
	}
}

// row prints the fields of the columns that are shown.
func (o *output) row(t *table, field func(i int) cell) {
	var b strings.Builder
	for n, i := range t.shown {
		c := field(i)
		c.text = cut(c.text, t.width[i])
		pad := strings.Repeat(" ", t.width[i]-utf8.RuneCountInString(c.text))
		s := o.paint(c.paint, c.text)
		last := n == len(t.shown)-1
		switch {
		case c.right:
			s = pad + s
		case !last:
			s += pad
		}
		b.WriteString(s)
		if !last {
			b.WriteString(strings.Repeat(" ", columnGap))
		}
	}
	fmt.Fprintln(o.out, strings.TrimRight(b.String(), " "))
}

// table is which of its columns are shown, and how wide.
type table struct {
	columns []column
	width   []int // by column
	shown   []int // places in columns
}

func newTable(columns []column, rows [][]cell) *table {
	t := &table{columns: columns, width: make([]int, len(columns))}
	for i, c := range columns {
		t.shown = append(t.shown, i)
		t.width[i] = utf8.RuneCountInString(c.head)
		for _, r := range rows {
			t.width[i] = max(t.width[i], utf8.RuneCountInString(r[i].text))
		}
	}
	return t
}

// fit cuts the elastic column and leaves others out until the table is no wider than a terminal, as far as that can be; 0 is any
// width. It gives the heads of those left out.
func (t *table) fit(terminal int) (leftOut []string) {
	if terminal == 0 {
		return nil
	}
	for t.over(terminal) > t.slack() {
		spare := t.mostSpare()
		if spare < 0 {
			break
		}
		leftOut = append(leftOut, t.columns[t.shown[spare]].head)
		t.shown = append(t.shown[:spare], t.shown[spare+1:]...)
	}
	if over := t.over(terminal); over > 0 {
		if i := t.elastic(); i >= 0 {
			t.width[i] -= min(over, t.slack())
		}
	}
	return leftOut
}

// over is by how much the shown columns are wider than a terminal.
func (t *table) over(terminal int) int {
	sum := columnGap * (len(t.shown) - 1)
	for _, i := range t.shown {
		sum += t.width[i]
	}
	return sum - terminal
}

// elastic gives the place of the column that may be cut; -1 for none.
func (t *table) elastic() int {
	for i, c := range t.columns {
		if c.elastic {
			return i
		}
	}
	return -1
}

// slack is by how much the elastic column may be cut.
func (t *table) slack() int {
	if i := t.elastic(); i >= 0 {
		return max(0, t.width[i]-leastElastic)
	}
	return 0
}

// mostSpare gives the place in shown of the column to leave out next; -1 for none.
func (t *table) mostSpare() int {
	most := -1
	for n, i := range t.shown {
		if c := t.columns[i]; c.spare > 0 && (most < 0 || c.spare > t.columns[t.shown[most]].spare) {
			most = n
		}
	}
	return most
}

// cut leaves the first runes of a text.
func cut(s string, width int) string {
	r := []rune(s)
	if len(r) <= width {
		return s
	}
	return string(r[:width-1]) + "…"
}

// terminalWidth is how many columns the terminal has that is written to; 0 where there is none, or it does not tell.
func terminalWidth(w io.Writer) (columns int) {
	f, ok := w.(*os.File)
	if !ok {
		return 0
	}
	conn, err := f.SyscallConn()
	if err != nil {
		return 0
	}
	_ = conn.Control(func(fd uintptr) { // a closed file has no width
		if size, err := unix.IoctlGetWinsize(int(fd), unix.TIOCGWINSZ); err == nil {
			columns = int(size.Col)
		}
	})
	return columns
}
