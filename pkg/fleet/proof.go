package fleet

import (
	"crypto/subtle"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/wellspring-xds/wellspring/pkg/model"
)

// Credential is what a report came with.
type Credential struct {
	// Names in the verified client certificate of its connection.
	Names []string
	// Key that it says.
	Key string
	// Private tells that nobody else could read the key: the connection is encrypted,
	// or does not leave the machine.
	Private bool
	// Peer is where it came from.
	Peer string
}

// Proof is what a credential is worth.
type Proof int

// The proofs.
const (
	// Refused is a report for a node that is not the reporter's.
	Refused Proof = iota
	// Unverified is one of whoever.
	Unverified
	// Verified is the node's own.
	Verified
)

// Prove holds a report's credential against the stream of the node that it says it
// is of, and says why it is not verified.
func (f *Fleet) Prove(node string, c Credential) (Proof, string) {
	p := f.proxy(node)
	if p == nil {
		return Unverified, "no proxy of this node id is connected"
	}
	streams := f.credentials(p)
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(streams) == 0 {
		streams = append(streams, p.is)
	}
	proof, why := Refused, ""
	for _, s := range streams { // two may be open: of a proxy that starts anew, or of two with one id
		if is, reason := prove(s, c); is >= proof {
			proof, why = is, reason
		}
	}
	switch {
	case proof == Verified:
		p.unproved = ""
	case proof == Unverified && (p.heard.IsZero() || late(f.now(), p.heard, p.pace)): // else it is somebody else
		p.unproved = why
	}
	return proof, why
}

// prove holds a credential against that of one stream.
func prove(is model.Proxy, c Credential) (Proof, string) {
	if len(is.Identity) > 0 && len(c.Names) > 0 && !slices.Equal(is.Identity, c.Names) {
		return Refused, fmt.Sprintf("its certificate has the names %s, that of the node's stream has %s", strings.Join(c.Names, ", "), strings.Join(is.Identity, ", "))
	}
	if c.Key != "" && is.ReportKey != "" && subtle.ConstantTimeCompare([]byte(c.Key), []byte(is.ReportKey)) == 0 {
		return Refused, "its report key is not that of the node's stream"
	}
	certified := len(is.Identity) > 0 && len(c.Names) > 0
	switch {
	case len(is.Identity) > 0 && !certified:
		return Unverified, "the node's stream came with a certificate, the report without"
	case is.ReportKey == "" && !certified:
		return Unverified, "the node's bootstrap has no report key; print a new one with wellspring bootstrap"
	case c.Key == "" && is.ReportKey != "": // a certificate may be a whole fleet's
		return Unverified, "it came without a report key"
	case !c.Private && !certified:
		return Unverified, "its report key came over a connection that others can read"
	}
	return Verified, ""
}

// RefusedReport is of reports that were not the reporter's to send.
type RefusedReport struct {
	Node  string    `json:"node" doc:"the proxy that they say they are of"`
	Peer  string    `json:"peer" doc:"where they came from"`
	Why   string    `json:"why"`
	Since time.Time `json:"since"`
	Last  time.Time `json:"last"`
	Count uint64    `json:"count"`
}

const (
	maxRefused  = 1000
	refusedKept = 10 * time.Minute
)

// Refuse keeps that a report was refused; peer is an address without a port.
func (f *Fleet) Refuse(node, peer, why string) {
	now := f.now()
	f.mu.Lock()
	i := slices.IndexFunc(f.refused, func(r RefusedReport) bool { return r.Node == node && r.Peer == peer && r.Why == why })
	if i >= 0 {
		f.refused[i].Last, f.refused[i].Count = now, f.refused[i].Count+1
		f.mu.Unlock()
		return
	}
	if len(f.refused) == maxRefused {
		f.refused = slices.Delete(f.refused, 0, 1)
	}
	f.refused = append(f.refused, RefusedReport{Node: node, Peer: peer, Why: why, Since: now, Last: now, Count: 1})
	f.mu.Unlock()
	f.cfg.Emit(model.Event{
		Kind: model.EventReportRefused, Subject: model.Subject{Kind: "Proxy", Name: node}, Proxy: node,
		Reason: fmt.Sprintf("a report from %s: %s", peer, why),
	})
}

// RefusedReports lists those of the last ten minutes, newest first.
func (f *Fleet) RefusedReports() []RefusedReport {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refused = slices.DeleteFunc(f.refused, func(r RefusedReport) bool { return f.now().Sub(r.Last) > refusedKept })
	out := slices.Clone(f.refused)
	slices.Reverse(out)
	return out
}
