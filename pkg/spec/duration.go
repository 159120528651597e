package spec

import (
	"encoding/json"
	"time"
)

// Duration is written as Go writes it: "250ms", "2s", "1m30s".
type Duration time.Duration

// D returns the time.Duration.
func (d Duration) D() time.Duration { return time.Duration(d) }

func (d Duration) String() string { return time.Duration(d).String() }

// MarshalJSON writes the string form.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

// MaxDuration bounds every duration in a document: Envoy refuses longer ones in
// some places and nobody means them.
const MaxDuration = Duration(24 * 365 * time.Hour)
