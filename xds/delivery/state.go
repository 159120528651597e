package delivery

import "time"

// held is what the proxy has of a name: res is nil where only the version is
// known, from what the proxy presented.
type held struct {
	version string
	res     *Resource
}

// sum is what the name adds to the version of a set.
func (h held) sum(name string) sum {
	if h.res != nil && h.res.Version == h.version {
		return h.res.sum
	}
	return sumOf(name, h.version)
}

// standing is how a stream stands to one name. The zero value is not to have it.
type standing struct {
	held       // what was sent last, or presented; answers pending
	holds bool // there is something of it
	acked bool // what is held is covered by an answer, or presented
	some  bool // the proxy has some form of it, acknowledged or presented
	ask   bool // answer though the version is the same
	tell  bool // its removal was refused, and is told again
}

// standingOf is how a name stands of which nothing else is known than what the set
// says: it is held in that form, and acknowledged.
func standingOf(r *Resource) standing {
	return standing{held: held{r.Version, r}, holds: true, acked: true, some: true}
}

// state is one type on one stream.
//
// A name stands as the set says that the stream has reached. What stands otherwise
// is an exception, and nothing but that needs a look: it is on its way, held back,
// refused, or gone and still held. So a stream to which nothing is owed costs nothing
// for each name, and a change costs what it changes.
type state struct {
	typ     Type
	started bool // a request came
	fresh   bool // the first request presented no version
	overlay[standing]
	sum    sum     // of the versions of all that is held
	count  int     // how many are held
	begins bool    // every name is asked for, and nothing was looked at yet
	flight *flight // a step that was sent and is not answered: flying, or nil
	flying flight

	owed     bool    // a response is due though nothing differs
	open     []*sent // oldest first
	spare    *sent   // one that is over, for the next
	newest   string  // nonce of the newest response
	accepted int     // responses that were accepted on this stream
	dirty    bool

	groups  []map[string]bool // what is tried apart, after a refusal without names
	refused string            // version of the set that was refused last: not sent again
	stuck   bool              // nothing is sent until the content changes
	waits   map[string]*wait  // what is held back
	retried map[content]bool  // parked content tried once more on this stream

	base bool // what a state-of-the-world client came with is known

	lag              time.Duration // of the last answer
	responses, bytes int           // handed over
}

// states are the types on one stream, in the order of Types.
type states [typeCount]*state

func (all *states) of(t Type) *state { return all[t.index()] }

// version is that of what is held. Streams that go the same step mostly have the same.
func (st *state) version(f *flight) string {
	if f != nil && f.sum == st.sum {
		return f.version
	}
	return st.sum.version()
}

// stand is how a name stands.
func (st *state) stand(name string) standing { return st.get(name) }

// put changes how a name stands.
func (st *state) put(name string, x standing) {
	was := st.stand(name)
	if was.version != x.version || was.holds != x.holds {
		if was.holds {
			st.sum, st.count = st.sum.minus(was.sum(name)), st.count-1
		}
		if x.holds {
			st.sum, st.count = st.sum.plus(x.sum(name)), st.count+1
		}
	}
	st.overlay.put(name, x)
}

// asks makes a name be answered though it is held.
func (st *state) asks(name string) {
	x := st.stand(name)
	x.ask = true
	st.put(name, x)
}

// drop forgets a name that the proxy left or was told to be gone.
func (st *state) drop(name string) {
	st.put(name, standing{})
	delete(st.waits, name)
}

// ackedVersion is the version of what is held and covered by answers.
func (st *state) ackedVersion() (version string, count int) {
	all, count := st.sum, st.count
	if st.flight != nil {
		for _, r := range st.flight.resources {
			if _, otherwise := st.over[r.Name]; !otherwise && st.covers(r.Name) {
				all, count = all.minus(r.sum), count-1
			}
		}
	}
	for name, x := range st.over {
		if x.value.holds && !x.value.acked {
			all, count = all.minus(x.value.sum(name)), count-1
		}
	}
	return all.version(), count
}

// fullSet is all that a state-of-the-world client has once it took what was sent.
func (st *state) fullSet() map[string]*Resource {
	all := make(map[string]*Resource, st.count)
	st.each(func(name string, x standing) {
		if x.holds && x.res != nil {
			all[name] = x.res
		}
	})
	return all
}

// view is which form somebody has of each name.
type view struct{ overlay[*Resource] }

func newView() *view {
	return &view{overlay[*Resource]{say: func(r *Resource) *Resource { return r }}}
}

func (v *view) get(name string) *Resource {
	if v == nil {
		return nil
	}
	return v.overlay.get(name)
}

// become takes all that a step's end has, and keeps what else there was.
func (v *view) become(p *step) {
	if v.at != nil && v.cover != p.from { // a step takes nothing away
		for _, m := range v.movesTo(p.to) {
			if _, otherwise := v.over[m.name]; !otherwise && m.is == nil {
				v.set(m.name, m.was, nil, false)
			}
		}
	}
	v.cover = p.to
	for name, x := range v.over {
		if plain := p.to.get(name); plain != nil {
			delete(v.over, name)
		} else {
			v.set(name, x.value, nil, true)
		}
	}
}

func (v *view) all() map[string]*Resource {
	out := map[string]*Resource{}
	if v != nil {
		v.each(func(name string, r *Resource) { out[name] = r })
	}
	return out
}

// kept is a set as it was sent: what has to be known of it to find out later that a
// client holds just this.
type kept struct {
	version string
	view    *view
}

// snapshot is the set that a client has once it took what was sent.
func (st *state) snapshot() *kept {
	v := newView()
	v.cover = st.cover
	for name, x := range st.over {
		v.put(name, x.value.res)
	}
	return &kept{st.sum.version(), v}
}

// sent is a response without an answer.
type sent struct {
	nonce     string
	at        time.Time
	part      int // of a response that was split
	flight    *flight
	resources []*Resource
	removed   []string
	version   string
	set       *kept // state of the world: all that the client has once it took this
}

// wait is a route table that is held back.
type wait struct {
	version string
	since   time.Time
	why     string
	over    bool
}

// named are the resources of a response by name.
func (o *sent) named() map[string]*Resource {
	m := make(map[string]*Resource, len(o.resources))
	for _, r := range o.resources {
		m[r.Name] = r
	}
	return m
}
