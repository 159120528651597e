package translate

import (
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/wellspring-xds/wellspring/pkg/model"
	"github.com/wellspring-xds/wellspring/pkg/spec"
)

// newest is the form that has everything.
var newest = Form{MaxBand, model.TelemetryEndpoints}

// Validate translates what a document's `envoy:` touches, and tells what is wrong
// with it; warnings tell where it overrides a field of the document.
func Validate(d *spec.Document, s *spec.Spec) (faults, warnings spec.Faults) {
	over := map[string][]string{}
	var err error
	switch b := d.Body.(type) {
	case *spec.Upstream:
		if b.Envoy != "" {
			_, over["spec.envoy"], err = patchedCluster(d.Name, b, nil, newest)
		}
		if err == nil {
			_, err = patchedAssignment(d.Name, b)
		}
	case *spec.Listener:
		if b.Envoy != "" || b.EnvoyHTTP != "" {
			_, over, err = patchedListener(d.Name, b, newest)
		}
		if err == nil && b.EnvoyRoutes != "" {
			own := *b
			own.Routes, own.AutoRoutes = nil, nil // each Route is validated by itself
			_, err = RouteTable(d.Name, &own, s, MaxBand)
		}
	case *spec.Route:
		_, over, err = virtualHost(d.Name, b, s)
	}
	var p *PatchError
	switch {
	case errors.As(err, &p):
		field := p.Field
		if p.Path != "" {
			field += "." + p.Path
		}
		return spec.Faults{d.Fault(field, p.Err.Error())}, nil
	case err != nil:
		return spec.Faults{d.Fault("spec", err.Error())}, nil
	}
	for _, field := range slices.Sorted(maps.Keys(over)) {
		if len(over[field]) > 0 {
			warnings = append(warnings, d.Advise(spec.AdviceOverrides, field, "overrides what the document's own fields say: %s", strings.Join(over[field], ", ")))
		}
	}
	return nil, warnings
}
