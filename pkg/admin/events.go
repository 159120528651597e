package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// Events is a page of events, oldest first.
type Events struct {
	Items []model.Event `json:"items"`
}

type (
	eventsIn struct {
		After string `query:"after" doc:"only events after this id"`
		Limit int    `query:"limit" default:"100" minimum:"1" maximum:"10000"`
		Since string `query:"since" format:"date-time" doc:"from this time on, as it is on disk, before a restart too; the newest limit of them"`
		Until string `query:"until" format:"date-time" doc:"up to this time"`
		Watch bool   `query:"watch" doc:"stream events as they happen, until the client goes"`
	}
	eventsOut struct{ Body Events }
)

// events registers the list. A request with watch=true never gets there: it is
// answered by streamEvents.
func (s *server) events(api huma.API) {
	huma.Register(api, operation("list-events", http.MethodGet, eventsPath, "What happened; ?watch=true streams server-sent events, resumed by Last-Event-ID"),
		func(ctx context.Context, in *eventsIn) (*eventsOut, error) {
			out := &eventsOut{Events{Items: []model.Event{}}}
			switch {
			case in.Since != "" || in.Until != "":
				if in.After != "" {
					return nil, newError(http.StatusBadRequest, "after goes by ids in memory, since and until by times on disk: send one or the other")
				}
				from, _ := time.Parse(time.RFC3339, in.Since) // its form was checked
				to, _ := time.Parse(time.RFC3339, in.Until)
				var err error
				if out.Body.Items, err = s.Recorded.Between(ctx, from, to, in.Limit); err != nil {
					return nil, failed(err)
				}
			case in.After == "":
				out.Body.Items = s.Events.Last(in.Limit)
			default:
				out.Body.Items, _ = s.Events.After(in.After, in.Limit)
			}
			if out.Body.Items == nil {
				out.Body.Items = []model.Event{}
			}
			return out, nil
		})
	huma.Register(api, operation("post-event", http.MethodPost, eventsPath, "Tell of something from outside: a deploy, a scale action", 404, 422), s.postEvent)
}

// PostedEvent is what somebody tells of.
type PostedEvent struct {
	Kind     string `json:"kind" pattern:"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$" doc:"what it is, in a word: deploy, scale"`
	Upstream string `json:"upstream,omitempty" maxLength:"253" doc:"which upstream it is about"`
	Message  string `json:"message" minLength:"1" maxLength:"500"`
}

type (
	postEventIn  struct{ Body PostedEvent }
	postEventOut struct{ Body model.Event }
)

// postEvent keeps an event of somebody else's, with who told it.
func (s *server) postEvent(ctx context.Context, in *postEventIn) (*postEventOut, error) {
	e := model.Event{Kind: model.EventExternal + in.Body.Kind, Subject: model.Subject{Kind: "External", Name: in.Body.Kind}, Reason: in.Body.Message, Actor: actor(ctx)}
	if name := in.Body.Upstream; name != "" {
		if _, ok := s.withImports().Upstream(name); !ok {
			return nil, failed(s.notFound(spec.Ref{Kind: spec.KindUpstream, Name: name}))
		}
		e.Subject = model.Subject{Kind: string(spec.KindUpstream), Name: name}
	}
	return &postEventOut{s.Events.Tell(e)}, nil
}

// orWatch answers a request to watch events, and leaves others to next.
func (s *server) orWatch(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && r.URL.Path == eventsPath && watches(r.URL.Query()) {
			s.streamEvents(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// watches tells whether a query asks for the stream. One with a parameter that
// nobody knows is left to who refuses it.
func watches(q url.Values) bool {
	for name := range q {
		if name != "watch" && name != "after" && name != "limit" {
			return false
		}
	}
	watch, err := strconv.ParseBool(q.Get("watch"))
	return err == nil && watch
}

const (
	eventsPath   = "/v1/events"
	ssePage      = 200
	sseHeartbeat = 15 * time.Second
)

// streamEvents sends events as they happen, with a comment now and then so that
// both sides notice a broken connection.
func (s *server) streamEvents(w http.ResponseWriter, r *http.Request) {
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Time{}) // the stream outlasts the server's read timeout
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	after := r.Header.Get("Last-Event-ID")
	if after == "" {
		after = r.URL.Query().Get("after")
	}
	if after == "" { // from now on
		if last := s.Events.Last(1); len(last) > 0 {
			after = last[0].ID
		}
	}
	heartbeat := time.NewTicker(sseHeartbeat)
	defer heartbeat.Stop()
	for {
		batch, moved := s.Events.After(after, ssePage)
		for _, e := range batch {
			text, err := json.Marshal(e)
			if err != nil {
				s.Logger.Error("event not printed", "err", err)
				continue
			}
			if _, err := fmt.Fprintf(w, "id: %s\nevent: %s\ndata: %s\n\n", e.ID, e.Kind, text); err != nil {
				return
			}
			after = e.ID
		}
		if rc.Flush() != nil {
			return
		}
		if len(batch) == ssePage {
			continue
		}
		select {
		case <-r.Context().Done():
			return
		case <-moved:
		case <-heartbeat.C:
			if _, err := fmt.Fprint(w, ": still here\n\n"); err != nil {
				return
			}
		}
	}
}
