package model

// Imports are the services that sources say by themselves are to be upstreams. It is
// immutable.
type Imports struct {
	// Keys are sorted.
	Keys []ServiceKey
	// Unknown are the sources that are to import and never could say what.
	Unknown []string
}
