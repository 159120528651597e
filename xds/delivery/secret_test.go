package delivery

import (
	"strings"
	"testing"
)

func secret(name, version string, private bool) *Resource {
	r := resource(Secrets, name, version)
	r.Private = private
	return r
}

// A new stream's every secret is answered, whatever version the client says it
// has: what names it may have been warming. A renewed one is sent alone.
func TestSecretsAnswered(t *testing.T) {
	both(t, func(t *testing.T, p *peer) {
		p.table = table(with(shop(), secret("listener.edge.cert", "1", false), secret("listener.edge.ca", "1", false))...)
		p.connect()
		// 1. asked for
		p.ask(Secrets, "listener.edge.ca", "listener.edge.cert")
		p.want(p.settle(), "secrets[listener.edge.ca=1 listener.edge.cert=1]")
		// 2. renewed: that one and nothing else
		p.update(table(with(shop(), secret("listener.edge.cert", "2", false), secret("listener.edge.ca", "1", false))...))
		p.want(p.settle(), "secrets[listener.edge.cert=2]")
		// 3. a new stream: all again
		p.connect()
		p.ask(Secrets, "listener.edge.ca", "listener.edge.cert")
		p.want(p.settle(), "secrets[listener.edge.ca=1 listener.edge.cert=2]")
	})
}

// Who has a secret keeps it, though nothing names it any more or its files are
// gone; who never had it is told that there is none, or, while it is only not
// readable, nothing.
func TestSecretGone(t *testing.T) {
	both(t, func(t *testing.T, p *peer) {
		p.table = table(with(shop(), secret("listener.edge.cert", "1", false))...)
		p.connect()
		p.ask(Secrets, "listener.edge.cert")
		p.settle()
		p.update(table(shop()...))
		p.silent()
		p.connect()
		p.ask(Secrets, "listener.edge.cert")
		p.silent()
		p.more(Secrets, "listener.old.cert")
		p.want(p.settle(), map[bool]string{true: "secrets[-listener.old.cert]", false: ""}[p.delta])
		late := table(shop()...)
		late.Unknown["listener.late.cert"] = true
		p.update(late)
		p.more(Secrets, "listener.late.cert")
		p.silent()
		p.update(table(with(shop(), secret("listener.late.cert", "1", false))...))
		p.want(p.settle(), "secrets[listener.late.cert=1]")
	})
}

// A private key does not travel where somebody could read it; the rest does, and
// what is held back is shown with the reason.
func TestPrivateKeys(t *testing.T) {
	both(t, func(t *testing.T, p *peer) {
		p.table = table(with(shop(), secret("listener.edge.cert", "1", true), secret("listener.edge.ca", "1", false))...)
		p.readable = true
		p.connect()
		p.ask(Secrets, "listener.edge.ca", "listener.edge.cert")
		p.want(p.settle(), "secrets[listener.edge.ca=1]")
		p.update(table(with(shop(), secret("listener.edge.cert", "2", true), secret("listener.edge.ca", "1", false))...))
		p.silent()
		d := p.s.Deliveries()
		if len(d) != 1 || len(d[0].Waiting) != 1 || d[0].Waiting[0].Name != "listener.edge.cert" || !strings.Contains(d[0].Waiting[0].Why, "private key") {
			t.Errorf("shown as %+v", d)
		}
		p.readable = false
		p.connect()
		p.ask(Secrets, "listener.edge.ca", "listener.edge.cert")
		p.want(p.settle(), "secrets[listener.edge.ca=1 listener.edge.cert=2]")
	})
}
