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

// Problem is an error as RFC 9457 says it, with every fault of the documents.
type Problem struct {
	Status int          `json:"status"`
	Title  string       `json:"title"`
	Detail string       `json:"detail"`
	Errors []spec.Fault `json:"errors,omitempty"`
}

// Error implements error.
func (p *Problem) Error() string {
	if len(p.Errors) > 0 {
		return p.Detail + "\n" + spec.Faults(p.Errors).Error()
	}
	return p.Detail
}

// GetStatus tells huma the status.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType tells huma the media type.
func (p *Problem) ContentType(string) string { return "application/problem+json" }

var _ huma.StatusError = (*Problem)(nil)

func newProblem(status int, detail string) *Problem {
	return &Problem{Status: status, Title: http.StatusText(status), Detail: detail}
}

// problem is the one place where errors become statuses.
func problem(err error) error {
	var faults spec.Faults
	var mismatch *store.MismatchError
	var p *Problem
	switch {
	case err == nil:
		return nil
	case errors.As(err, &p):
		return p
	case errors.As(err, &faults):
		p = newProblem(http.StatusUnprocessableEntity, "the documents have faults; nothing was changed")
		p.Errors = faults
		return p
	case errors.As(err, &mismatch):
		return newProblem(http.StatusPreconditionFailed, mismatch.Error())
	case errors.Is(err, model.ErrNotFound):
		return newProblem(http.StatusNotFound, err.Error())
	case errors.Is(err, model.ErrConflict):
		return newProblem(http.StatusConflict, err.Error())
	case errors.Is(err, model.ErrInvalid):
		return newProblem(http.StatusUnprocessableEntity, err.Error())
	}
	return newProblem(http.StatusInternalServerError, err.Error())
}

func writeProblem(w http.ResponseWriter, p *Problem) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // the client is gone when this fails
}
