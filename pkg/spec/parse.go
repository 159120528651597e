package spec

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"github.com/wellspring-xds/wellspring/pkg/model"
)

// Limits on what is read, checked before it is parsed.
const (
	MaxText     = 16 << 20
	MaxDocument = 1 << 20
	MaxDepth    = 64
)

// Parse reads the documents in a text of YAML or JSON. file names the text in
// faults. It returns the documents that are right by themselves, in the order
// they were written, and every fault of the others.
func Parse(file string, text []byte) ([]*Document, Faults) {
	return parse(file, text, MaxDocument)
}

// ParseStored reads a document that was accepted once: its text may be longer in
// canonical form than it was as written.
func ParseStored(text []byte) (*Document, error) {
	docs, faults := parse("store", text, MaxText)
	if err := faults.Err(); err != nil {
		return nil, err
	}
	if len(docs) != 1 {
		return nil, fmt.Errorf("holds %d documents: %w", len(docs), model.ErrInvalid)
	}
	return docs[0].Stored(0), nil
}

func parse(file string, text []byte, maxDocument int) ([]*Document, Faults) {
	if len(text) > MaxText {
		return nil, Faults{{File: file, Message: fmt.Sprintf("is %d bytes long; at most %d are taken in one go", len(text), MaxText)}}
	}
	if !utf8.Valid(text) {
		return nil, Faults{{File: file, Message: "is not UTF-8 text"}}
	}
	var docs []*Document
	var faults Faults
	for _, part := range split(text) {
		d, f := parseOne(file, part, maxDocument)
		docs, faults = append(docs, d...), append(faults, f...)
	}
	slices.SortStableFunc(faults, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return docs, faults
}

// part is the text of one document and the number of lines before it.
type part struct {
	text   []byte
	before int
}

// split cuts a text at its lines "---". Such a line at column 1 is a document's
// start in every YAML context, also inside a block scalar.
func split(text []byte) []part {
	var parts []part
	start, line, startLine := 0, 0, 0
	for pos := 0; pos < len(text); {
		end := len(text)
		if i := bytes.IndexByte(text[pos:], '\n'); i >= 0 {
			end = pos + i + 1
		}
		l := bytes.TrimRight(text[pos:end], " \t\r\n")
		line++
		if bytes.Equal(l, []byte("---")) || bytes.HasPrefix(l, []byte("--- #")) {
			parts = append(parts, part{text[start:pos], startLine})
			start, startLine = end, line
		}
		pos = end
	}
	return append(parts, part{text[start:], startLine})
}

func parseOne(file string, p part, maxDocument int) (docs []*Document, faults Faults) {
	body, faults := parsePart(file, p, maxDocument)
	if body == nil {
		return nil, faults
	}
	nodes := []ast.Node{body}
	if list, ok := body.(*ast.SequenceNode); ok {
		nodes = list.Values
	}
	for _, n := range nodes {
		doc, f := decodeDocument(file, p.before, n, maxDocument != MaxDocument)
		faults = append(faults, f...)
		if len(f) == 0 {
			docs = append(docs, doc)
		}
	}
	return docs, faults
}

// parseTree reads a text that is one value, nil when it is empty.
func parseTree(file string, text []byte) (ast.Node, Faults) {
	if !utf8.Valid(text) {
		return nil, Faults{{File: file, Message: "is not UTF-8 text"}}
	}
	return parsePart(file, part{text: text}, MaxDocument)
}

// parsePart returns the syntax tree of one value, nil when there is none.
func parsePart(file string, p part, maxDocument int) (body ast.Node, faults Faults) {
	at := Place{File: file, Line: p.before + 1, Column: 1}
	fault := func(pl Place, format string, args ...any) Faults {
		return Faults{{File: pl.File, Line: pl.Line, Column: pl.Column, Message: fmt.Sprintf(format, args...)}}
	}
	if len(p.text) > maxDocument {
		return nil, fault(at, "the document is %d bytes long; at most %d are taken", len(p.text), maxDocument)
	}
	// The parser is not ours and reads hostile text: what makes it panic is
	// refused like any other text that cannot be read.
	defer func() {
		if r := recover(); r != nil {
			body, faults = nil, fault(at, "cannot be read as YAML or JSON")
		}
	}()
	tokens := lexer.Tokenize(string(p.text))
	if t := tooDeep(tokens); t != nil {
		return nil, fault(Place{file, p.before + t.Position.Line, t.Position.Column}, "is nested deeper than %d levels", MaxDepth)
	}
	tree, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		pl, msg := syntaxError(err, at, p.before)
		return nil, fault(pl, "%s", msg)
	}
	for _, d := range tree.Docs {
		if d.Body == nil {
			continue
		}
		if _, isComment := d.Body.(*ast.CommentGroupNode); isComment {
			continue
		}
		if body != nil {
			return nil, fault(at, "holds more than one value")
		}
		body = d.Body
	}
	return body, nil
}

// tooDeep returns the token at which nesting passes MaxDepth. It runs before the
// parser, which is recursive.
func tooDeep(tokens token.Tokens) *token.Token {
	flow := 0
	var columns []int // of the blocks that are open
	for _, t := range tokens {
		switch t.Type {
		case token.MappingStartType, token.SequenceStartType:
			flow++
		case token.MappingEndType, token.SequenceEndType:
			flow--
		case token.SequenceEntryType, token.MappingValueType:
			if flow > 0 {
				continue // inside brackets the brackets count
			}
			col := t.Position.Column
			if t.Type == token.MappingValueType && t.Prev != nil {
				col = t.Prev.Position.Column
			}
			for len(columns) > 0 && columns[len(columns)-1] > col {
				columns = columns[:len(columns)-1]
			}
			if len(columns) == 0 || columns[len(columns)-1] < col {
				columns = append(columns, col)
			}
		}
		if flow > MaxDepth || (flow <= 0 && len(columns) > MaxDepth) {
			return t
		}
	}
	return nil
}

// syntaxError reads place and message out of the parser's error.
func syntaxError(err error, at Place, before int) (Place, string) {
	type positioned interface {
		GetToken() *token.Token
		GetMessage() string
	}
	if p, ok := err.(positioned); ok && p.GetToken() != nil {
		pos := p.GetToken().Position
		return Place{at.File, before + pos.Line, pos.Column}, "is not YAML: " + p.GetMessage()
	}
	msg, _, _ := strings.Cut(err.Error(), "\n")
	return at, "is not YAML: " + msg
}

// canonical returns the document as canonical JSON, the form that is stored and
// hashed.
func canonical(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimRight(b.Bytes(), "\n"), nil
}
