package admin

import (
	"context"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/wellspring-xds/wellspring/pkg/model"
)

// backupTime is how long a client may take to read a backup.
const backupTime = 10 * time.Minute

// backup registers a copy of the store. It is spooled to a file and verified before
// a byte is sent, so that a slow client holds no transaction open.
func (s *server) backup(api huma.API) {
	op := operation("backup", http.MethodGet, "/v1/backup", "A verified copy of the store")
	op.Responses = map[string]*huma.Response{"200": {
		Description: "OK", Headers: map[string]*huma.Param{"Wellspring-Revision": {Schema: &huma.Schema{Type: huma.TypeInteger}}},
		Content: map[string]*huma.MediaType{"application/octet-stream": {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}},
	}}
	one := make(chan struct{}, 1) // each is a whole copy on the store's own disk
	huma.Register(api, op, func(ctx context.Context, _ *struct{}) (*huma.StreamResponse, error) {
		select {
		case one <- struct{}{}:
		default:
			return nil, newError(http.StatusTooManyRequests, "another backup is under way; try again when it is done")
		}
		file, revision, err := s.Store.Backup(ctx)
		if err != nil {
			<-one
			return nil, failed(err)
		}
		s.Logger.Info("backup taken", "revision", revision, "actor", actor(ctx))
		s.Events.Emit(model.Event{Kind: model.EventBackup, Subject: model.Subject{Kind: "Store", Name: "backup"}, Revision: revision, Actor: actor(ctx)})
		return &huma.StreamResponse{Body: func(out huma.Context) {
			defer func() { <-one }()
			defer os.Remove(file.Name()) //nolint:errcheck // a leftover is taken away at the next start
			defer file.Close()           //nolint:errcheck // read only
			if info, err := file.Stat(); err == nil {
				out.SetHeader("Content-Length", strconv.FormatInt(info.Size(), 10))
			}
			out.SetHeader("Content-Type", "application/octet-stream")
			out.SetHeader("Wellspring-Revision", strconv.FormatUint(revision, 10))
			if w, ok := out.BodyWriter().(http.ResponseWriter); ok {
				_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(backupTime)) // not every transport has one
			}
			_, _ = io.Copy(out.BodyWriter(), file) // the client is gone when this fails
		}}, nil
	})
}
