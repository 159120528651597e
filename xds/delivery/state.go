package delivery

import "time"

// held is what the proxy has of a name: res is nil where only the version is
// known, from what the proxy presented.
type held struct {
	version string
	res     *Resource
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

// state is one type on one stream.
//
// A name stands as the set says that the stream has reached: held in that form, and
// acknowledged. What stands otherwise is in over, and nothing but that needs a look:
// it is on its way, held back, refused, or gone and still held. So a stream to which
// nothing is owed costs nothing for each name, and a change costs what it changes.
type state struct {
	typ     Type
	started bool // a request came
	fresh   bool // the first request presented no version
	cover        // what is subscribed to, of the set that the stream has reached
	over    map[string]standing
	sum     sum // of the versions of all that is held
	count   int // how many are held

	owed     bool    // a response is due though nothing differs
	open     []*sent // oldest first
	newest   string  // nonce of the newest response
	accepted int     // responses that were accepted on this stream
	dirty    bool

	groups  []map[string]bool // what is tried apart, after a refusal without names
	refused string            // version of the set that was refused last: not sent again
	stuck   bool              // nothing is sent until the content changes
	waits   map[string]*wait  // what is held back
	retried map[content]bool  // parked content tried once more on this stream

	base bool // what a state-of-the-world client came with is known
	lag  time.Duration
}

// plain is how a name stands that is not in over.
func (st *state) plain(name string) standing {
	r := st.get(name)
	if r == nil {
		return standing{}
	}
	return standing{held: held{r.Version, r}, holds: true, acked: true, some: true}
}

func (st *state) stand(name string) standing {
	if x, ok := st.over[name]; ok {
		return x
	}
	return st.plain(name)
}

// put changes how a name stands.
func (st *state) put(name string, x standing) {
	was := st.stand(name)
	if was.version != x.version || was.holds != x.holds {
		if was.holds {
			st.sum, st.count = st.sum.minus(sumOf(name, was.version)), st.count-1
		}
		if x.holds {
			st.sum, st.count = st.sum.plus(sumOf(name, x.version)), st.count+1
		}
	}
	st.keep(name, x)
}

// keep writes down how a name stands, where the set does not say it.
func (st *state) keep(name string, x standing) {
	if x == st.plain(name) {
		delete(st.over, name)
		return
	}
	if st.over == nil {
		st.over = map[string]standing{}
	}
	st.over[name] = x
}

// asks makes a name be answered though it is held.
func (st *state) asks(name string) {
	x := st.stand(name)
	x.ask = true
	st.put(name, x)
}

// moveTo takes up another set, or another subscription: every name stands as before.
func (st *state) moveTo(to cover) {
	if st.cover == to {
		return
	}
	var was []entry[standing]
	st.differences(to, func(name string) { was = append(was, entry[standing]{name, st.stand(name)}) })
	st.cover = to
	for _, e := range was {
		st.keep(e.name, e.value)
	}
	if len(st.over) == 0 {
		st.over = nil // a map that was large stays so
	}
}

// drop forgets a name that the proxy left or was told to be gone.
func (st *state) drop(name string) {
	st.put(name, standing{})
	delete(st.waits, name)
}

// each calls f with everything that is held.
func (st *state) each(f func(name string, x standing)) {
	st.cover.each(func(r *Resource) {
		if _, otherwise := st.over[r.Name]; !otherwise {
			f(r.Name, st.plain(r.Name))
		}
	})
	for name, x := range st.over {
		if x.holds {
			f(name, x)
		}
	}
}

// ackedVersion is the version of what is held and covered by answers.
func (st *state) ackedVersion() (version string, count int) {
	sum, count := st.sum, st.count
	for name, x := range st.over {
		if x.holds && !x.acked {
			sum, count = sum.minus(sumOf(name, x.version)), count-1
		}
	}
	return sum.version(), count
}

// fullSet is all that a state-of-the-world client has once it took what was sent.
func (st *state) fullSet() map[string]*Resource {
	all := make(map[string]*Resource, st.count)
	st.each(func(name string, x standing) {
		if x.res != nil {
			all[name] = x.res
		}
	})
	return all
}

// kept is a set as it was sent: what has to be known of it to find out later that a
// client holds just this.
type kept struct {
	version string
	view    view
}

// snapshot is the set that a client has once it took what was sent.
func (st *state) snapshot() kept {
	k := kept{version: st.sum.version(), view: view{cover: st.cover}}
	if len(st.over) > 0 {
		k.view.over = make(map[string]*Resource, len(st.over))
		for name, x := range st.over {
			k.view.over[name] = x.res
		}
	}
	return k
}

// sent is a response without an answer.
type sent struct {
	nonce     string
	at        time.Time
	resources []*Resource
	removed   []string
	version   string
	set       kept // state of the world: all that the client has once it took this
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
