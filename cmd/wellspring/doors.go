package main

import (
	"crypto/tls"
	"log/slog"
	"path/filepath"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/wellspring-xds/wellspring/pkg/access"
	"github.com/wellspring-xds/wellspring/pkg/certificate"
	"github.com/wellspring-xds/wellspring/pkg/events"
	"github.com/wellspring-xds/wellspring/pkg/model"
)

// doors are how our listeners are entered. What their files hold is read again
// when they change.
type doors struct {
	xds          credentials.TransportCredentials
	telemetry    *tls.Config // nil is without TLS
	admin        *tls.Config // the same
	gate         access.Gate
	certificates *certificate.Store
	tokensFile   string
	log          *slog.Logger
	happened     *events.Log
	tokensFault  string // the last that was told
}

func newDoors(c *config, certificates *certificate.Store, happened *events.Log, log *slog.Logger) (*doors, error) {
	d := &doors{
		xds: insecure.NewCredentials(), certificates: certificates, tokensFile: c.Admin.TokensFile, log: log, happened: happened,
		gate: access.Gate{Certificates: c.Admin.TLS.ClientCA != "", Writers: c.Admin.Writers},
	}
	if c.Insecure {
		log.Warn("listening where asked to, though anybody may come in", "xds", c.XDS.Listen, "telemetry", c.Telemetry.Listen, "admin", c.Admin.Listen)
	}
	if c.XDS.TLS.on() {
		t, err := d.tls("xds.tls", c.XDS.TLS)
		if err != nil {
			return nil, err
		}
		d.xds = credentials.NewTLS(t.Config())
	}
	if c.Telemetry.TLS.on() {
		t, err := d.tls("telemetry.tls", c.Telemetry.TLS)
		if err != nil {
			return nil, err
		}
		t.Protocols = []string{"h2", "http/1.1"}
		d.telemetry = t.Config()
	}
	if c.Admin.TLS.on() {
		t, err := d.tls("admin.tls", c.Admin.TLS)
		if err != nil {
			return nil, err
		}
		t.Optional = true // a token does as well, and the gate asks for one of them
		t.Protocols = []string{"h2", "http/1.1"}
		d.admin = t.Config()
	}
	if d.tokensFile != "" {
		var err error
		if d.gate.Tokens, err = access.NewTokens(d.tokensFile); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// tls wants the files of one listener, which must be right when we start.
func (d *doors) tls(user string, c tlsConfig) (*access.TLS, error) {
	t := &access.TLS{Store: d.certificates, Server: certificate.Ref{Cert: absolute(c.Cert), Key: absolute(c.Key)}}
	refs := []certificate.Ref{t.Server}
	if c.ClientCA != "" {
		t.ClientCA = certificate.Ref{Cert: absolute(c.ClientCA)}
		refs = append(refs, t.ClientCA)
	}
	d.certificates.Want(user, refs...)
	for _, r := range refs {
		if _, err := d.certificates.Get(r); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// paths are the files that are followed.
func (d *doors) paths() []string {
	out := d.certificates.Paths()
	if d.tokensFile != "" {
		out = append(out, d.tokensFile)
	}
	return out
}

// reload reads the files again; what is faulty leaves the last good form.
func (d *doors) reload() {
	defer d.certificates.Reload() // after the tokens: one that is revoked waits for nothing
	if d.gate.Tokens == nil {
		return
	}
	changed, err := d.gate.Tokens.Reload()
	switch {
	case err == nil:
		d.tokensFault = ""
		if changed {
			d.log.Info("tokens read again")
			d.happened.Emit(model.Event{Kind: model.EventTokensRead, Subject: model.Subject{Kind: "Tokens", Name: d.tokensFile}})
		}
	case err.Error() != d.tokensFault:
		d.tokensFault = err.Error()
		d.log.Error("tokens not read again; those of before hold", "err", err)
		d.happened.Emit(model.Event{Kind: model.EventTokensRead, Subject: model.Subject{Kind: "Tokens", Name: d.tokensFile}, Reason: "not read, those of before hold: " + err.Error()})
	}
}

// absolute keeps a path right wherever it is looked at from.
func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}
