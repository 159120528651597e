package telemetry

import (
	"maps"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// quota is how much one proxy may send.
type quota struct {
	reports, failures *rate.Limiter
	body              sync.Mutex // held while one of its reports is received
	last              time.Time
}

const (
	reportsOfProxy = 1 // a second, and reportBurst at once
	reportBurst    = 5
	failuresOfOne  = 100 // a second, and failureBurst at once
	failureBurst   = 500
	quotaKept      = 10 * time.Minute
)

// quotas are those of all proxies that came lately.
type quotas struct {
	mu    sync.Mutex // guards what follows
	all   map[string]*quota
	swept time.Time
}

func (q *quotas) of(node string) *quota {
	now := time.Now()
	q.mu.Lock()
	defer q.mu.Unlock()
	if now.Sub(q.swept) > quotaKept {
		maps.DeleteFunc(q.all, func(_ string, x *quota) bool { return now.Sub(x.last) > quotaKept })
		q.swept = now
	}
	x := q.all[node]
	if x == nil {
		x = &quota{reports: rate.NewLimiter(reportsOfProxy, reportBurst), failures: rate.NewLimiter(failuresOfOne, failureBurst)}
		if q.all == nil {
			q.all = map[string]*quota{}
		}
		q.all[node] = x
	}
	x.last = now
	return x
}
