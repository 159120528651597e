package diagnose

import (
	"strings"
	"testing"

	"github.com/wellspring-xds/wellspring/pkg/health"
	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// A request that nobody sends to an upstream: by which hosts and rules it was held, or who
// answers it.
func TestNoWay(t *testing.T) {
	a := spec.Asking{Host: "shop.example", Path: "/x"}
	none := spec.Way{Group: "edge", Listener: "web", Route: "shop", Rule: -1, Tried: []string{"Route/shop: rules[0]: path /x is not /cart"}}
	itself := spec.Way{Group: "edge", Listener: "web", Route: "shop", Rule: 2, Answer: "the proxy answers 403 by itself"}
	for _, x := range []struct {
		ways     []spec.Way
		code     Code
		evidence string
	}{
		{nil, G2, "no Group names a Listener"},
		{[]spec.Way{none}, G2, "group edge, listener web: Route/shop: rules[0]: path /x is not /cart"},
		{[]spec.Way{none, itself}, G3, "Route/shop rules[2]: the proxy answers 403 by itself"},
	} {
		e := NoWay(x.ways, a, now)
		if len(e.Findings) != 1 || e.Findings[0].Code != x.code || !strings.Contains(strings.Join(e.Findings[0].Evidence, "\n"), x.evidence) || len(e.Road) != len(x.ways) {
			t.Errorf("%+v", e)
		}
	}
}

func TestSibling(t *testing.T) {
	c := well()
	c.empties("absent")
	e := Explain(*c)
	n := len(e.Findings)
	if with := e.Sibling([]string{"catalog-v2"}); len(with.Findings) != n+1 || with.Findings[n].Code != G4 || with.Findings[n].Strength != Possible {
		t.Errorf("%+v", with.Findings)
	}
	if alone := e.Sibling(nil); len(alone.Findings) != n {
		t.Errorf("%+v", alone.Findings)
	}
	if fine := (Explanation{State: health.Healthy}).Sibling([]string{"x"}); len(fine.Findings) != 0 {
		t.Errorf("%+v", fine.Findings)
	}
	c = well()
	c.failed("UF", 100)
	if e := Explain(*c).Sibling([]string{"x"}); e.State.Worse(health.Degraded) || e.Findings[len(e.Findings)-1].Code != G4 {
		t.Errorf("its endpoints are well, and requests fail: %s, %+v", e.State, e.Findings)
	}
	road := Road(spec.Way{Group: "edge", Listener: "web", Route: "shop", Rule: 1, To: []spec.Destination{{Upstream: "a", Weight: 9}, {Upstream: "b", Weight: 1}}})
	if road != "group edge, listener web, Route/shop rules[1]: a (weight 9), b (weight 1)" {
		t.Error(road)
	}
}
