// Package spec holds the documents that operators write: their structs, strict
// parsing, defaults, validation, JSON Schema and reference.
//
// The road of a document:
//
//	text ─ Parse ─► Document (one kind, checked alone, canonical JSON kept)
//	Documents ─ New ─► Spec (references resolved, or every fault at once)
//
// The structs that are parsed are the structs that are translated; there is no
// second form. Struct tags carry everything that the schema, the reference page
// and the decoder need: json (name), doc, default, enum, minimum, maximum,
// required.
//
// Decisions:
//   - YAML is parsed by goccy's parser, and its syntax tree is walked here, since
//     its own decoder stops at the first fault and we report all of them.
//   - Anchors, aliases, tags and merge keys are refused: they make a small text
//     large, and nothing in a document needs them.
//   - A document is stored as canonical JSON of what was written, without
//     defaults. A changed default therefore never rewrites a document.
package spec
