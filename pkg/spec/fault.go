package spec

import (
	"fmt"
	"strings"

	"github.com/wellspring-xds/wellspring/pkg/model"
)

// Fault is one thing wrong with a document, with its place.
type Fault struct {
	// Document is KIND/NAME, as far as they could be read.
	Document string   `json:"document,omitempty"`
	File     string   `json:"file,omitempty"`
	Line     int      `json:"line,omitempty"`
	Column   int      `json:"column,omitempty"`
	Field    string   `json:"field,omitempty"`
	Message  string   `json:"message"`
	Allowed  []string `json:"allowed,omitempty"`
	// Code is of a warning, and Fix what to do about it.
	Code string `json:"code,omitempty" doc:"of a warning; a document with it in ignore is left alone by it"`
	Fix  string `json:"fix,omitempty"`
}

// String prints "file:line:column: Kind/name: field: message".
func (f Fault) String() string {
	var b strings.Builder
	if f.File != "" {
		b.WriteString(f.File + ":")
	}
	if f.Line > 0 {
		fmt.Fprintf(&b, "%d:%d:", f.Line, f.Column)
	}
	if b.Len() > 0 {
		b.WriteByte(' ')
	}
	for _, s := range []string{f.Document, f.Field} {
		if s != "" {
			b.WriteString(s + ": ")
		}
	}
	b.WriteString(f.Message)
	if len(f.Allowed) > 0 {
		fmt.Fprintf(&b, " (allowed: %s)", strings.Join(f.Allowed, ", "))
	}
	if f.Fix != "" {
		b.WriteString("; " + f.Fix)
	}
	if f.Code != "" {
		b.WriteString(" [" + f.Code + "]")
	}
	return b.String()
}

// Faults is every fault found; it is an error when it is not empty.
type Faults []Fault

func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i, x := range f {
		lines[i] = x.String()
	}
	return strings.Join(lines, "\n")
}

// Is makes errors.Is(err, model.ErrInvalid) hold.
func (f Faults) Is(target error) bool { return target == model.ErrInvalid }

// Err returns nil for no faults, so that an empty Faults is never a non-nil
// error.
func (f Faults) Err() error {
	if len(f) == 0 {
		return nil
	}
	return f
}
