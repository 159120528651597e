package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"golang.org/x/term"
	"sigs.k8s.io/yaml"
)

// width that tables are fitted to; -o wide does not cut.
const width = 80

// table is rows of cells; the last column is cut to fit.
type table struct {
	head []string
	rows [][]string
}

func (t *table) add(cells ...string) {
	for i := range cells {
		cells[i] = plain(cells[i])
	}
	t.rows = append(t.rows, cells)
}

// plain turns control characters into spaces: a check's output must neither
// break a table nor drive a terminal.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r >= 0x7f && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}

// print writes a value in the form that was asked for: names for -o name, the
// table for people, v for machines.
func (g *global) print(w io.Writer, v any, t *table, names []string) error {
	switch g.output {
	case "json":
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		return e.Encode(v)
	case "yaml":
		text, err := json.Marshal(v)
		if err != nil {
			return err
		}
		if text, err = yaml.JSONToYAML(text); err != nil {
			return err
		}
		_, err = w.Write(text)
		return err
	case "name":
		for _, n := range names {
			if _, err := fmt.Fprintln(w, n); err != nil {
				return err
			}
		}
		return nil
	case "table", "wide":
		return t.write(w, g.output == "wide")
	}
	return &exitError{exitUsage, fmt.Sprintf("-o %s: allowed are table, wide, json, yaml and name", g.output)}
}

func (t *table) write(w io.Writer, wide bool) error {
	if len(t.rows) == 0 {
		return nil
	}
	var b bytes.Buffer
	tw := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, row := range append([][]string{t.head}, t.rows...) {
		_, _ = fmt.Fprintln(tw, strings.Join(row, "\t")) // into memory
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for line := range strings.Lines(b.String()) {
		line = strings.TrimRight(line, " \n")
		if !wide {
			line = cut(line)
		}
		if _, err := fmt.Fprintln(w, colour(w, line)); err != nil {
			return err
		}
	}
	return nil
}

// cut shortens a line to width.
func cut(s string) string {
	s = plain(s)
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	return string([]rune(s)[:width-1]) + "…"
}

// colours of the words that say a state.
var colours = []struct{ word, code string }{
	{" critical ", "31"}, {" empty ", "31"}, {" degraded ", "33"}, {" unknown ", "33"}, {" refused ", "31"}, {" hidden ", "31"},
}

// colour marks the states of a line, on a terminal only.
func colour(w io.Writer, line string) string {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" || !term.IsTerminal(int(f.Fd())) {
		return line
	}
	for _, c := range colours {
		line = strings.Replace(line, c.word, "\x1b["+c.code+"m"+c.word+"\x1b[0m", 1)
	}
	return line
}

// ago prints how long ago a moment was: 4s, 6m10s, 3h12m, 5d.
func ago(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return elapsed(time.Since(t))
}

// elapsed is a span of time in its two largest units.
func elapsed(d time.Duration) string {
	switch d = max(0, d); {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%dm", int(d.Hours()), int(d.Minutes())%60)
	default:
		return fmt.Sprintf("%dd", int(d.Hours()/24))
	}
}

// orDash keeps empty cells visible.
func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
