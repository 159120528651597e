// Package admin is the HTTP API: documents and their history, health, sources,
// proxies and events. It knows no Envoy and no registry; what runs is asked of
// the one-method interfaces in Config.
//
//	/v1/{kind}s[/{name}]     documents; upstreams with their health
//	/v1/apply                many documents at once, or a dry run
//	/v1/revisions[/…]        history, diff, restore
//	/v1/health /v1/upstreams/{name}/health
//	/v1/explain              why requests to an upstream fail
//	/v1/lint                 what is probably not meant in the documents
//	/v1/findings             what the server found by itself, with begin and end
//	/v1/certificates         those in use, and when they end
//	/v1/sources /v1/proxies[/{id}/xds] /v1/events
//	/v1/overrides            an operator's words about single endpoints
//	/v1/log /v1/backup       how much is logged, a copy of the store
//	/livez /readyz /metrics /version /openapi.json /docs
//
// Whose request it is, and what that may do, is settled in one place before every
// path (gate.go): /livez and /readyz are open, all else is closed unless a
// credential opens it, and the author of a revision is the credential's name. A
// request from another site's page is refused by its Host and Origin.
package admin

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/wellspring-xds/wellspring/discovery"
	"github.com/wellspring-xds/wellspring/pkg/access"
	"github.com/wellspring-xds/wellspring/pkg/envoyadmin"
	"github.com/wellspring-xds/wellspring/pkg/events"
	"github.com/wellspring-xds/wellspring/pkg/findings"
	"github.com/wellspring-xds/wellspring/pkg/fleet"
	"github.com/wellspring-xds/wellspring/pkg/freshness"
	"github.com/wellspring-xds/wellspring/pkg/health"
	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/spec"
	"github.com/wellspring-xds/wellspring/pkg/store"
)

// Fleet is what is known of the connected proxies.
type Fleet interface {
	Streams(ctx context.Context) []model.Stream
	Refused() []model.RefusedStream
	Holding(ctx context.Context, id string) (model.Holding, error)
}

// Publisher is what is known of what is served.
type Publisher interface {
	Problems() []model.Problem
	Held() map[string]bool
	Ready(group string) error
	// Endpoints are those that an upstream uses, as they are published, and a problem
	// for each that it cannot; false where there is no such upstream.
	Endpoints(upstream string) ([]model.Endpoint, []model.Problem, bool)
	// Spec is what is published: the documents, and an upstream for each service that
	// is imported.
	Spec() *spec.Spec
}

// Health is how upstreams do.
type Health interface {
	Health() []health.Upstream
	// HealthBy is how one does by what proxies see; false where there is none of that
	// name.
	HealthBy(name string, views []fleet.View) (health.Upstream, bool)
}

// Recorded is what happened, as it is on disk.
type Recorded interface {
	// Between reads the newest limit events of a span of time, oldest first; zero times
	// are without bound.
	Between(ctx context.Context, from, to time.Time, limit int) ([]model.Event, error)
}

// Config of the API.
type Config struct {
	Store     *store.Store
	Catalog   *discovery.Catalog
	Publisher Publisher
	Health    Health
	// Fleet is what proxies were sent, Seen what they see.
	Fleet  Fleet
	Seen   *fleet.Fleet
	Events *events.Log
	// Recorded are those on disk.
	Recorded Recorded
	// Impact says which of Envoy's resources differ between two Specs.
	Impact func(before, after *spec.Spec) []model.Impact
	// Gate says whose request it is; its zero value asks for no credentials.
	Gate access.Gate
	// AllowedHosts are names of this server besides localhost and its addresses.
	AllowedHosts []string
	// Validate finds in changed documents what only a running server can; nil finds
	// nothing.
	Validate func(before, after *spec.Spec) (faults, warnings spec.Faults)
	// Certificates lists those in use; nil is none.
	Certificates func() []model.Certificate
	// Freshness is how fresh a source is by its canary, nil where it has none; nil is none
	// anywhere.
	Freshness func(source string) *freshness.Status
	// Admins says which Envoys may be asked, Evidence asks all that is known of an upstream.
	Admins   envoyadmin.Policy
	Evidence Evidence
	// Findings is what the standing watch found: what goes on, and with ended what is over.
	Findings func(ended bool) []findings.TimedFinding
	Metrics  http.Handler
	// Profiles serves Go's profiles of this process to writers.
	Profiles bool
	Version  Version
	Logger   *slog.Logger
	// Level is the log's; nil is one that nobody reads.
	Level *slog.LevelVar
}

// Version of the running program.
type Version struct {
	Version string `json:"version"`
	Go      string `json:"go"`
	Commit  string `json:"commit,omitempty"`
}

type server struct{ Config }

// maxBody is a request's; a text of documents may have 16 MiB.
const maxBody = spec.MaxText + 1<<10

// New returns the API's handler.
func New(cfg Config) http.Handler {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Validate == nil {
		cfg.Validate = func(_, _ *spec.Spec) (faults, warnings spec.Faults) { return nil, nil }
	}
	if cfg.Findings == nil {
		cfg.Findings = func(bool) []findings.TimedFinding { return nil }
	}
	if cfg.Certificates == nil {
		cfg.Certificates = func() []model.Certificate { return nil }
	}
	s := &server{cfg}
	mux := http.NewServeMux()
	hc := huma.DefaultConfig("Wellspring", cfg.Version.Version)
	hc.DocsPath, hc.SchemasPath = "", ""
	hc.OpenAPIPath = "/openapi"
	hc.CreateHooks = nil                         // no $schema in answers
	hc.RejectUnknownQueryParameters = true       // a misspelt dryRun must not write
	hc.AllowAdditionalPropertiesByDefault = true // answers grow; a client must not break by that
	hc.Transformers = []huma.Transformer{ofRequest}
	hc.Info.Description = "Documents, health, sources, proxies and events of a Wellspring control plane."
	api := humago.New(mux, hc)
	s.documents(api)
	s.history(api)
	s.health(api)
	s.explain(api)
	s.findings(api)
	s.lint(api)
	s.fleet(api)
	s.events(api)
	s.overrides(api)
	s.log(api)
	s.backup(api)
	s.process(api, mux)
	describe(api.OpenAPI())
	mux.HandleFunc("GET "+docsPath, docs(api.OpenAPI()))
	origins := http.NewCrossOriginProtection()
	origins.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		writeError(w, newError(http.StatusForbidden, "a page of another origin may not change anything here"))
	}))
	return http.MaxBytesHandler(origins.Handler(s.knownHosts(s.gate(s.orWatch(orError(mux))))), maxBody)
}

// orError answers what no path or method matches in the form of every other error.
func orError(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h, pattern := mux.Handler(r)
		if pattern != "" {
			mux.ServeHTTP(w, r)
			return
		}
		miss := &statusOnly{header: w.Header()}
		h.ServeHTTP(miss, r)
		why := "there is no such path; /docs and /openapi.json list them"
		if allow := w.Header().Get("Allow"); allow != "" {
			why = "this path takes " + allow
		}
		writeError(w, newError(miss.status, why))
	})
}

// statusOnly keeps the status and headers of an answer, and drops its words.
type statusOnly struct {
	header http.Header
	status int
}

func (s *statusOnly) Header() http.Header         { return s.header }
func (s *statusOnly) WriteHeader(status int)      { s.status = status }
func (s *statusOnly) Write(b []byte) (int, error) { return len(b), nil }

// operation names an operation; the rest follows from method and path.
func operation(id, method, path, summary string, errors ...int) huma.Operation {
	return huma.Operation{OperationID: id, Method: method, Path: path, Summary: summary, Errors: errors}
}

// process registers what is asked about the process itself.
func (s *server) process(api huma.API, mux *http.ServeMux) {
	type versionOut struct{ Body Version }
	huma.Register(api, operation("version", http.MethodGet, "/version", "The running program"),
		func(context.Context, *struct{}) (*versionOut, error) { return &versionOut{s.Version}, nil })
	if s.Metrics != nil {
		mux.Handle("GET /metrics", s.Metrics)
	}
	if s.Profiles {
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /readyz", s.readyz)
}

// readyz is 503 while a group with listeners would be refused. A registry that
// dies later does not make it so.
func (s *server) readyz(w http.ResponseWriter, r *http.Request) {
	code, lines := http.StatusOK, ""
	sp := s.Store.State().Spec
	for _, d := range sp.Documents(spec.KindGroup) {
		g, _ := d.Body.(*spec.Group)
		if len(g.Listeners) == 0 {
			continue
		}
		if err := s.Publisher.Ready(d.Name); err != nil {
			code = http.StatusServiceUnavailable
			lines += "not ready: " + err.Error() + "\n"
		} else {
			lines += "ready: group " + d.Name + "\n"
		}
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	if _, verbose := r.URL.Query()["verbose"]; verbose {
		_, _ = fmt.Fprint(w, lines)
	} else if code == http.StatusOK {
		_, _ = fmt.Fprintln(w, "ok")
	} else {
		_, _ = fmt.Fprintln(w, "not ready; see /readyz?verbose")
	}
}

// HTTPServer returns a server with the deadlines of an API: slow headers and
// bodies end, streams of events may last.
func HTTPServer(h http.Handler) *http.Server {
	return &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10}
}
