// Package discovery is the contract of a source of services, and the catalog
// that merges what the sources say.
//
//	Source ─ report(key, Report) ─► Catalog ─ Service(key) ─► who publishes
//	                                   ▲ Want(keys)
//
// A source watches only the keys that are wanted. It reports what it saw and
// decides nothing; the catalog keeps the last authoritative answer of each key
// for as long as the key is wanted, whatever fails in between. The catalog is the
// truth as reported: what is published of it is decided further down the road.
//
// Empty (nobody there), Absent (no such name) and not knowing are three answers.
// The first two are authoritative. A failure cannot carry endpoints, since the
// type has no place for them.
package discovery

import (
	"context"

	"github.com/wellspring-xds/wellspring/pkg/model"
)

// Source brings services from one registry.
type Source interface {
	// Run watches until ctx ends and then returns nil. Each value of want is the
	// whole set of keys to watch, all of this source, replacing the one before;
	// the channel is never closed while ctx lives. report may be called from
	// several goroutines, but for one key from one at a time; it does not block.
	// Failures are retried inside, with back-off and jitter; an error returned is
	// one that no retry can mend.
	Run(ctx context.Context, want <-chan []model.ServiceKey, report func(model.ServiceKey, Report)) error
}

// Reader is a source that can be asked for the occasion, about what nobody watches.
type Reader interface {
	// Read asks once. What it answers is not kept.
	Read(ctx context.Context, key model.ServiceKey) Report
}

// Importer is a source that says by itself which services are to be upstreams.
type Importer interface {
	// Names watches until ctx ends. Each call of report has every service, or the
	// failure by which nothing can be said now, which takes nothing away. report is
	// called from one goroutine, at least once a minute.
	Names(ctx context.Context, report func([]model.ServiceKey, Failed))
}

// Registry is a source that a canary can be registered in.
type Registry interface {
	// Flip registers a canary, or gives it another value. It returns once the registry
	// has taken that.
	Flip(ctx context.Context, c model.Canary) error
	// Retire takes a canary out.
	Retire(ctx context.Context, id string) error
}

// Report is what a source says about a key: Present, Empty, Absent or Failed. A
// key without a name is the source itself in that datacenter, and takes Fresh,
// Failed or Unwatched.
type Report interface{ isReport() }

// Present is an authoritative answer with instances, sorted by ID.
type Present struct {
	Endpoints []model.Endpoint
	Problems  []model.Problem
}

// Empty is an authoritative answer: the name is known and nobody is there.
type Empty struct{}

// Absent is an authoritative answer: there is no such name.
type Absent struct{}

// Failed means that nothing can be said now. It never removes anything.
type Failed struct {
	Reason Reason
	Err    error
}

// Fresh means that the source answers with authority now.
type Fresh struct{}

// Unwatched means that nothing needs the source in that datacenter any more.
type Unwatched struct{}

func (Unwatched) isReport() {}
func (Present) isReport()   {}
func (Empty) isReport()     {}
func (Absent) isReport()    {}
func (Failed) isReport()    {}
func (Fresh) isReport()     {}

// Reason sorts failures by what an operator does about them.
type Reason string

// The reasons.
const (
	Unreachable  Reason = "unreachable"   // no connection, or it broke
	NoLeader     Reason = "no leader"     // the registry answers, and has no leader to ask
	Denied       Reason = "denied"        // the credential is refused
	Filtered     Reason = "filtered"      // the credential hides part of the answer
	Limited      Reason = "limited"       // too many connections or requests
	NoDatacenter Reason = "no datacenter" // the registry does not know the datacenter
	BadAnswer    Reason = "bad answer"    // what came back cannot be read or believed
	NoSource     Reason = "no source"     // no source has that name
)
