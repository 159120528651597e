package xds

import (
	"fmt"
	"path/filepath"

	"google.golang.org/protobuf/proto"

	"github.com/wellspring-xds/wellspring/pkg/certificate"
	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/spec"
	"github.com/wellspring-xds/wellspring/xds/delivery"
	"github.com/wellspring-xds/wellspring/xds/translate"
)

// Secrets keep the files that documents name. No method blocks for long.
type Secrets interface {
	// Users makes what the users under a prefix want all that is wanted under it.
	Users(prefix string, wants map[string][]certificate.Ref)
	// Get returns a wanted bundle in its last good form, or why there is none.
	Get(certificate.Ref) (*certificate.Bundle, error)
	// Changed returns a channel that is closed once a bundle changed.
	Changed() <-chan struct{}
}

// made is a secret as it was encoded, from a bundle.
type made struct {
	from     *certificate.Bundle
	resource *delivery.Resource
}

// ref is where a secret's files lie.
func (p *Publisher) ref(s spec.Secret) certificate.Ref {
	r := certificate.Ref{Cert: filepath.Join(p.cfg.SecretsDir, s.Cert)}
	if s.Key != "" {
		r.Key = filepath.Join(p.cfg.SecretsDir, s.Key)
	}
	return r
}

// wantSecrets wants the files of every document, and of what is still served in an
// older form. mu is held.
func (p *Publisher) wantSecrets() {
	listeners, upstreams, names := map[string][]certificate.Ref{}, map[string][]certificate.Ref{}, map[string]bool{}
	add := func(to map[string][]certificate.Ref, kind spec.Kind, name string, secrets []spec.Secret) {
		for _, s := range secrets {
			user := string(kind) + "/" + name
			to[user] = append(to[user], p.ref(s))
			names[s.Name] = true
		}
	}
	for kind, to := range map[spec.Kind]map[string][]certificate.Ref{spec.KindListener: listeners, spec.KindUpstream: upstreams} {
		for _, d := range p.spec.Documents(kind) {
			add(to, kind, d.Name, d.Secrets())
		}
	}
	for name, pub := range p.published {
		if pub.frozen {
			add(upstreams, spec.KindUpstream, name, pub.body.Secrets(name))
		}
	}
	p.cfg.Secrets.Users(string(spec.KindListener)+"/", listeners)
	p.cfg.Secrets.Users(string(spec.KindUpstream)+"/", upstreams)
	for name := range p.secrets {
		if !names[name] {
			delete(p.secrets, name)
		}
	}
}

// addSecrets puts the secrets of a document into a table. mu is held.
func (p *Publisher) addSecrets(t content, doc string, secrets []spec.Secret) {
	for _, s := range secrets {
		r, err := p.secret(doc, s)
		if r != nil {
			t.add(r)
		} else {
			t.unknown[s.Name] = true
		}
		if err != nil {
			p.note(nil, []model.Problem{{Document: doc, Field: s.Field, Message: err.Error()}})
		}
	}
}

// unknownSecrets keeps those of an upstream that is not served from being told as
// removed. mu is held.
func (p *Publisher) unknownSecrets(t content, upstream string) {
	if u, ok := p.spec.Upstream(upstream); ok {
		for _, s := range u.Secrets(upstream) {
			t.unknown[s.Name] = true
		}
	}
}

// secret is a secret by its files of now, or its last good form.
func (p *Publisher) secret(doc string, s spec.Secret) (*delivery.Resource, error) {
	before := p.secrets[s.Name]
	b, err := p.cfg.Secrets.Get(p.ref(s))
	if err != nil {
		return before.resource, err
	}
	if before.from == b {
		return before.resource, nil
	}
	var m proto.Message = translate.Authority(s.Name, b.Chain)
	if s.Key != "" {
		m = translate.KeyPair(s.Name, b.Chain, b.PrivateKey)
	}
	r, err := encode(delivery.Secrets, s.Name, doc, m)
	if err != nil {
		return before.resource, err
	}
	r.Private = s.Key != ""
	p.secrets[s.Name] = made{b, r}
	return r, nil
}

// renewed takes up changed files.
func (p *Publisher) renewed() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.publish(map[model.ServiceKey]bool{})
}

// noSecrets is where nothing is configured: every file is missing.
type noSecrets struct{}

func (noSecrets) Users(string, map[string][]certificate.Ref) {}

func (noSecrets) Get(r certificate.Ref) (*certificate.Bundle, error) {
	return nil, fmt.Errorf("%s: %w", r.Cert, certificate.ErrUnread)
}

func (noSecrets) Changed() <-chan struct{} { return nil }

// Validate finds in changed documents what only this server can: files that are
// not there or not right, and parts of Envoy's own messages that it would refuse.
func (p *Publisher) Validate(before, after *spec.Spec) (faults, warnings spec.Faults) {
	for _, d := range after.Documents("") {
		if was := before.Document(d.Kind, d.Name); was == d || was != nil && was.Hash() == d.Hash() {
			continue // who changes something else is not held up by it
		}
		wrong, odd := translate.Validate(d, after)
		faults, warnings = append(faults, wrong...), append(warnings, odd...)
		for _, s := range d.Secrets() {
			if _, err := certificate.Read(p.ref(s)); err != nil {
				faults = append(faults, d.Fault(s.Field, err.Error()+"; put it there first"))
			}
		}
	}
	p.mu.Lock()
	keys := p.imports.Keys
	p.mu.Unlock()
	hidden := before.HiddenServices(keys)
	for name, k := range after.HiddenServices(keys) {
		if _, already := hidden[name]; !already {
			faults = append(faults, after.Document(spec.KindUpstream, name).Fault("name", fmt.Sprintf(
				"an inbound listener leads here, so that no autoRoutes do; %s is reached by this name: give the application's upstream another, as %s-app", k, name)))
		}
	}
	return faults, warnings
}
