package consul

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/hashicorp/consul/api"

	"github.com/wellspring-xds/wellspring/discovery"
	"github.com/wellspring-xds/wellspring/pkg/model"
)

// answer is one read: entries with an index, or a failure.
type answer struct {
	entries []*api.ServiceEntry
	index   uint64
	failed  discovery.Failed
}

func (s *Source) options(ctx context.Context, k model.ServiceKey) *api.QueryOptions {
	o := &api.QueryOptions{Token: s.token.get(), Datacenter: k.Datacenter, Namespace: k.Namespace, Partition: k.Partition}
	return o.WithContext(ctx)
}

// plainRead asks with index 0, which Consul always answers from the leader's
// state, and believes only what cannot be an absence of knowledge.
func (s *Source) plainRead(ctx context.Context, k model.ServiceKey) answer {
	ctx, cancel := context.WithTimeout(ctx, plainWait)
	defer cancel()
	entries, meta, err := s.client.Health().Service(k.Name, "", false, s.options(ctx, k))
	if err != nil {
		return answer{failed: failure(err)}
	}
	fail := func(reason discovery.Reason, format string, args ...any) answer {
		return answer{failed: discovery.Failed{Reason: reason, Err: fmt.Errorf(format, args...)}}
	}
	switch {
	case !meta.KnownLeader:
		return fail(discovery.NoLeader, "consul answered without knowing a leader")
	case meta.ResultsFilteredByACLs:
		return fail(discovery.Filtered, "consul hides instances of %q from this token; give it service:read and node:read", k.Name)
	case len(entries) == 0 && strings.EqualFold(meta.DefaultACLPolicy, "deny") && s.token.get() == "":
		return fail(discovery.Denied, "consul denies by default and no token is set; an empty answer proves nothing")
	case meta.LastIndex <= 1:
		return fail(discovery.BadAnswer, "consul answered with index %d, which no loaded state has", meta.LastIndex)
	}
	return answer{entries: entries, index: meta.LastIndex}
}

// Read implements discovery.Reader.
func (s *Source) Read(ctx context.Context, k model.ServiceKey) discovery.Report {
	a := s.plainRead(ctx, k)
	if a.failed.Err != nil {
		return a.failed
	}
	return s.reportOf(k, a.entries)
}

// blockingRead waits for a change after index.
func (s *Source) blockingRead(ctx context.Context, k model.ServiceKey, index uint64) answer {
	ctx, cancel := context.WithTimeout(ctx, queryWait*17/16+queryMargin)
	defer cancel()
	o := s.options(ctx, k)
	o.WaitIndex, o.WaitTime = index, queryWait
	entries, meta, err := s.client.Health().Service(k.Name, "", false, o)
	if err != nil {
		return answer{failed: failure(err)}
	}
	if meta.ResultsFilteredByACLs {
		return answer{failed: discovery.Failed{Reason: discovery.Filtered, Err: fmt.Errorf("consul hides instances of %q from this token", k.Name)}}
	}
	return answer{entries: entries, index: meta.LastIndex}
}

// failure sorts an error by what an operator does about it.
func failure(err error) discovery.Failed {
	f := discovery.Failed{Reason: discovery.Unreachable, Err: err}
	var status api.StatusError
	if !errors.As(err, &status) {
		if strings.Contains(err.Error(), "Failed to parse X-Consul-") || strings.Contains(err.Error(), "invalid character") || strings.Contains(err.Error(), "cannot unmarshal") {
			f.Reason = discovery.BadAnswer
		}
		return f
	}
	body := strings.TrimSpace(status.Body)
	if len(body) > maxReason {
		body = body[:maxReason]
	}
	f.Err = fmt.Errorf("consul answered %d: %s", status.Code, body)
	switch {
	case status.Code == http.StatusForbidden || status.Code == http.StatusUnauthorized:
		f.Reason = discovery.Denied
	case status.Code == http.StatusTooManyRequests:
		f.Reason = discovery.Limited
		f.Err = fmt.Errorf("%w; raise limits.http_max_conns_per_client in Consul, or lower maxConnections of this source", f.Err)
	case strings.Contains(body, "No path to datacenter"):
		f.Reason = discovery.NoDatacenter
	case strings.Contains(body, "No cluster leader"), strings.Contains(body, "leadership lost"),
		// the agent lives, the servers behind it do not answer it
		strings.Contains(body, "No known Consul servers"), status.Code >= 500 && (strings.Contains(body, "rpc error") || strings.Contains(body, "connection error")):
		f.Reason = discovery.NoLeader
	case status.Code < 500:
		f.Reason = discovery.BadAnswer
	}
	return f
}
