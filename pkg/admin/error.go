package admin

import (
	"encoding/json"
	"errors"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/spec"
	"github.com/wellspring-xds/wellspring/pkg/store"
)

// Error is what every failed request gets: RFC 9457's problem details, with every
// fault of the documents.
type Error struct {
	Status int          `json:"status"`
	Title  string       `json:"title"`
	Detail string       `json:"detail" doc:"what is wrong, and what to do"`
	Errors []spec.Fault `json:"errors,omitempty" doc:"every fault, not only the first"`
}

// Error implements error.
func (e *Error) Error() string {
	if len(e.Errors) > 0 {
		return e.Detail + "\n" + spec.Faults(e.Errors).Error()
	}
	return e.Detail
}

// GetStatus tells huma the status.
func (e *Error) GetStatus() int { return e.Status }

// ContentType tells huma the media type.
func (e *Error) ContentType(string) string { return "application/problem+json" }

var _ huma.StatusError = (*Error)(nil)

func newError(status int, detail string) *Error {
	return &Error{Status: status, Title: http.StatusText(status), Detail: detail}
}

// failed is the one place where errors become statuses.
func failed(err error) error {
	var faults spec.Faults
	var mismatch *store.MismatchError
	var e *Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &e):
		return e
	case errors.As(err, &faults):
		e = newError(http.StatusUnprocessableEntity, "the documents have faults; nothing was changed")
		e.Errors = faults
		return e
	case errors.As(err, &mismatch):
		return newError(http.StatusPreconditionFailed, mismatch.Error())
	case errors.Is(err, model.ErrNotFound):
		return newError(http.StatusNotFound, err.Error())
	case errors.Is(err, model.ErrConflict):
		return newError(http.StatusConflict, err.Error())
	case errors.Is(err, model.ErrInvalid):
		return newError(http.StatusUnprocessableEntity, err.Error())
	}
	return newError(http.StatusInternalServerError, err.Error())
}

// ofRequest gives the framework's own errors (a parameter that is no number, a
// name that it does not know) the form of ours.
func ofRequest(_ huma.Context, _ string, v any) (any, error) {
	m, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	e := newError(m.Status, m.Detail)
	for _, d := range m.Errors {
		e.Errors = append(e.Errors, spec.Fault{File: "request", Field: d.Location, Message: d.Message})
	}
	return e, nil
}

func writeError(w http.ResponseWriter, e *Error) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(e.Status)
	_ = json.NewEncoder(w).Encode(e) // the client is gone when this fails
}
