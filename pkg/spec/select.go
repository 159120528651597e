package spec

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"

	"github.com/wellspring-xds/wellspring/pkg/model"
)

// Select returns the endpoints of a service that the upstream uses, with the
// address that it uses, sorted by ID, and a problem for each one that it would
// use and cannot. Every reader of "which endpoints" asks here: translation and
// health never differ.
func (u *Upstream) Select(name string, svc *model.Service) ([]model.Endpoint, []model.Problem) {
	if svc == nil {
		return nil, nil
	}
	out := make([]model.Endpoint, 0, len(svc.Endpoints))
	var problems []model.Problem
	first := make(map[string]string, len(svc.Endpoints)) // address → id
	for _, e := range svc.Endpoints {
		if !u.wants(e) {
			continue
		}
		if tag := u.Service.AddressTag; tag != "" {
			e.Address = e.Addresses[tag]
		}
		problem := func(format string, args ...any) {
			problems = append(problems, model.Problem{Document: string(KindUpstream) + "/" + name, Field: e.ID, Message: fmt.Sprintf(format, args...)})
		}
		ap, err := netip.ParseAddrPort(e.Address)
		if u.Hostnames() {
			ap, err = u.resolvable(e.Address)
		}
		switch {
		case e.Address == "":
			problem("has no address with the tag %q", u.Service.AddressTag)
			continue
		case err != nil && u.Hostnames():
			problem("%q is neither an IP nor a name with a port; Envoy would refuse the whole cluster", e.Address)
			continue
		case err != nil:
			problem("%q is not an IP and a port; Envoy would refuse the whole assignment", e.Address)
			continue
		case ap.Port() == 0:
			problem("%q has no port", e.Address)
			continue
		}
		if id, ok := first[e.Address]; ok {
			problem("has the address %s of %s too; Envoy would keep only one", e.Address, id)
			continue
		}
		first[e.Address] = e.ID
		out = append(out, e)
	}
	return out, problems
}

// resolvable reads a name with a port; the address of one that is no IP is the
// unspecified one.
func (u *Upstream) resolvable(s string) (netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return netip.AddrPort{}, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err == nil && !ValidHost(host) {
		err = errors.New("not a name")
	}
	return netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(n)), err
}

func (u *Upstream) wants(e model.Endpoint) bool {
	for _, t := range u.Service.Tags {
		if !slices.Contains(e.Tags, t) {
			return false
		}
	}
	for k, v := range u.Service.Metadata {
		if got, ok := e.Metadata[k]; !ok || got != v {
			return false
		}
	}
	return true
}
