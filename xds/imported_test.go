package xds_test

import (
	"testing"

	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/spec"
	"github.com/wellspring-xds/wellspring/xds"
	"github.com/wellspring-xds/wellspring/xds/delivery"
)

// lists is a catalog whose sources import some services.
type lists struct {
	*told
	imports model.Imports
}

func (l *lists) Imports() *model.Imports { return &l.imports }

// Of two services with one name the one that had it keeps it over a restart, though
// both ever answered: nobody's endpoints are taken away, or become another's.
func TestImportedNameStays(t *testing.T) {
	store := newStore(t, "kind: Group\nname: edge\nspec: {listeners: []}\n")
	east, west := model.ServiceKey{Source: "east", Name: "web"}, model.ServiceKey{Source: "west", Name: "web"}
	holder := func(keys ...model.ServiceKey) string {
		t.Helper()
		p := xds.New(xds.Config{Store: store, Catalog: &lists{newTold(), model.Imports{Keys: keys}}, Engine: delivery.NewEngine()})
		d := p.Spec().Document(spec.KindUpstream, "web")
		if d == nil {
			return "nobody"
		}
		return d.Body.(*spec.Upstream).Service.Source
	}
	if err := store.MarkAnswered([]model.ServiceKey{east, west}); err != nil {
		t.Fatal(err)
	}
	for i, c := range []struct {
		keys []model.ServiceKey
		want string
	}{
		{[]model.ServiceKey{east, west}, "nobody"}, // nobody knows who was first
		{[]model.ServiceKey{west}, "west"},
		{[]model.ServiceKey{east, west}, "west"},
		{[]model.ServiceKey{east}, "east"}, // west is gone for good
		{[]model.ServiceKey{east, west}, "east"},
	} {
		if got := holder(c.keys...); got != c.want {
			t.Errorf("start %d: %s has the name, want %s", i, got, c.want)
		}
	}
}
