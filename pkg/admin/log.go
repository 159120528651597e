package admin

import (
	"context"
	"log/slog"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/wellspring-xds/wellspring/pkg/model"
)

// Log is how much the server logs.
type Log struct {
	Level string `json:"level" enum:"debug,info,warn,error" doc:"least level that is logged, until the next start"`
}

const logPath = "/v1/log"

type (
	logOut struct{ Body Log }
	logIn  struct{ Body Log }
)

// log registers the level of the log, where it can be changed.
func (s *server) log(api huma.API) {
	level := s.Level
	if level == nil {
		level = &slog.LevelVar{}
	}
	huma.Register(api, operation("get-log", http.MethodGet, logPath, "How much is logged"),
		func(context.Context, *struct{}) (*logOut, error) { return &logOut{Log{levelName(level)}}, nil })
	huma.Register(api, operation("put-log", http.MethodPut, logPath, "Log more or less, until the next start", 422),
		func(ctx context.Context, in *logIn) (*logOut, error) {
			was := levelName(level)
			if err := level.UnmarshalText([]byte(in.Body.Level)); err != nil {
				return nil, newError(http.StatusUnprocessableEntity, err.Error())
			}
			s.Logger.Info("log level set", "from", was, "to", levelName(level), "actor", actor(ctx))
			s.Events.Emit(model.Event{Kind: model.EventLogLevel, Subject: model.Subject{Kind: "Log", Name: "level"}, From: was, To: levelName(level), Actor: actor(ctx)})
			return &logOut{Log{levelName(level)}}, nil
		})
}

func levelName(level *slog.LevelVar) string { return strings.ToLower(level.Level().String()) }
