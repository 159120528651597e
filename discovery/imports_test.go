package discovery

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/wellspring-xds/wellspring/pkg/model"
)

type importer struct {
	reports func(func([]model.ServiceKey, Failed))
}

func (i importer) Names(_ context.Context, report func([]model.ServiceKey, Failed)) {
	i.reports(report)
}

// What a source lists is imported; a failure takes nothing away; a name that is no
// longer listed stays for a while, as somebody who is deployed anew comes back; a
// source that never listed is told as unknown.
func TestImports(t *testing.T) {
	now := time.Unix(1000, 0)
	c := New(Config{Now: func() time.Time { return now }, Importers: map[string]Importer{"a": importer{}, "b": importer{}}})
	key := func(source, name string) model.ServiceKey { return model.ServiceKey{Source: source, Name: name} }
	is := func(what, keys, unknown string) {
		t.Helper()
		var got []string
		for _, k := range c.Imports().Keys {
			got = append(got, k.String())
		}
		if strings.Join(got, " ") != keys || strings.Join(c.Imports().Unknown, " ") != unknown {
			t.Errorf("%s: imports %v, unknown %v", what, got, c.Imports().Unknown)
		}
	}
	is("at the start", "", "a b")
	c.reportNames("a", []model.ServiceKey{key("a", "web"), key("a", "api")}, Failed{})
	is("a listed", "a/api a/web", "b")
	c.reportNames("b", nil, Failed{Reason: Unreachable, Err: errors.New("gone")})
	is("b failed", "a/api a/web", "b")
	c.reportNames("b", nil, Failed{})
	is("b lists nobody", "a/api a/web", "")
	same := c.Imports()
	for range 2 {
		c.reportNames("a", []model.ServiceKey{key("a", "api")}, Failed{})
	}
	is("web is gone", "a/api a/web", "")
	if c.Imports() != same {
		t.Error("the same imports are another value")
	}
	select {
	case <-c.Signal():
	default:
		t.Error("no signal came")
	}
	now = now.Add(importGrace)
	c.reportNames("a", []model.ServiceKey{key("a", "api")}, Failed{})
	is("within the grace", "a/api a/web", "")
	now = now.Add(time.Hour)
	c.reportNames("a", nil, Failed{Reason: Filtered, Err: errors.New("hidden")})
	c.reportNames("a", []model.ServiceKey{key("a", "api")}, Failed{})
	is("the source was away for long", "a/api a/web", "")
	now = now.Add(importGrace + time.Second)
	c.reportNames("a", []model.ServiceKey{key("a", "api")}, Failed{})
	is("after the grace", "a/api", "")
	c.reportNames("a", nil, Failed{})
	is("everybody is gone", "a/api", "")
}
