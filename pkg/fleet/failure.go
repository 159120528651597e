package fleet

import (
	"slices"
	"time"
)

// Failed is one request, or one attempt of a request, that failed, as a proxy tells
// it. Some are lost where there are many; counts come from Failure.
type Failed struct {
	Time     time.Time     `json:"time"`
	Proxy    string        `json:"proxy"`
	Upstream string        `json:"-"`
	Route    string        `json:"-"`
	Flag     string        `json:"-"`
	Detail   string        `json:"-"`
	Attempt  bool          `json:"-"`
	Method   string        `json:"method,omitempty"`
	Host     string        `json:"host,omitempty"`
	Path     string        `json:"path,omitempty" doc:"without its query"`
	Status   int           `json:"status,omitempty"`
	Endpoint string        `json:"endpoint,omitempty"`
	Failure  string        `json:"failure,omitempty" doc:"what the connection failed by"`
	Attempts int           `json:"attempts,omitempty"`
	Took     time.Duration `json:"took,omitempty" doc:"nanoseconds"`
	Request  string        `json:"request,omitempty" doc:"x-request-id"`
}

// reason is what requests failed by, in detail.
type reason struct {
	route, flag, detail string
	attempt             bool
}

// Reason is failed requests that were told alike, and some of them.
type Reason struct {
	Route   string    `json:"route,omitempty"`
	Flag    string    `json:"flag"`
	Detail  string    `json:"detail" doc:"Envoy's response code details"`
	Attempt bool      `json:"attempt,omitempty" doc:"one attempt; the request may have been saved by another"`
	Count   uint64    `json:"count" doc:"that were told; some are lost where there are many"`
	Since   time.Time `json:"since"`
	Last    time.Time `json:"last"`
	Samples []Failed  `json:"samples" doc:"the newest, and the first"`
}

const (
	maxReasons = 50 // of an upstream; the one that is quiet for longest makes room
	maxSamples = 4  // of a reason
)

// Failed keeps a failed request of a verified proxy.
func (f *Fleet) Failed(x Failed) {
	if len(x.Upstream) > longestText {
		f.drop(DroppedTexts)
		return
	}
	u := f.upstream([]byte(x.Upstream))
	if u == nil {
		f.drop(DroppedUpstreams)
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	k := reason{x.Route, x.Flag, x.Detail, x.Attempt}
	r := u.reasons[k]
	if r == nil {
		if u.reasons == nil {
			u.reasons = map[reason]*Reason{}
		}
		if len(u.reasons) >= maxReasons {
			u.forgetReason()
		}
		r = &Reason{Route: x.Route, Flag: x.Flag, Detail: x.Detail, Attempt: x.Attempt, Since: x.Time}
		u.reasons[k] = r
	}
	r.Count++
	if x.Time.After(r.Last) {
		r.Last = x.Time
	}
	if len(r.Samples) == maxSamples {
		r.Samples = slices.Delete(r.Samples, 1, 2) // the first stays
	}
	r.Samples = append(r.Samples, x)
}

// forgetReason makes room. mu is held.
func (u *upstream) forgetReason() {
	var oldest reason
	var last time.Time
	for k, r := range u.reasons {
		if last.IsZero() || r.Last.Before(last) {
			oldest, last = k, r.Last
		}
	}
	delete(u.reasons, oldest)
}
