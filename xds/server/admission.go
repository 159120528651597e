package server

import (
	"context"
	"runtime"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc/codes"

	"github.com/wellspring-xds/wellspring/xds/delivery"
)

// admission lets streams begin one after the other where many come at once: a new one
// is sent all that its class has, and those that are served need the processor too. A
// token stands for one resource.
type admission struct {
	tokens *rate.Limiter
	// turn is had by the one stream that waits for tokens; the others wait for it. So a
	// stream that gives up leaves none behind that are spent and serve nobody.
	turn chan struct{}
}

const (
	// admittedPerCore is how many resources a second new streams are sent: about what
	// one core can encode, send and have acknowledged.
	admittedPerCore = 1_000_000
	// streamCost is what a stream costs besides, in resources.
	streamCost = 500
	// admittedAtOnce is for how long tokens gather while nobody comes.
	admittedAtOnce = 250 * time.Millisecond
)

func newAdmission() admission {
	perSecond := float64(admittedPerCore * runtime.GOMAXPROCS(0))
	return admission{rate.NewLimiter(rate.Limit(perSecond), int(perSecond*admittedAtOnce.Seconds())), make(chan struct{}, 1)}
}

// admit waits until a stream may begin that will be sent a table, and returns how long
// that took.
func (s *Server) admit(ctx context.Context, t *delivery.Table) (time.Duration, error) {
	began := time.Now()
	s.metrics.waiting.Inc()
	defer s.metrics.waiting.Dec()
	select {
	case s.admission.turn <- struct{}{}:
		defer func() { <-s.admission.turn }()
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	tokens := s.admission.tokens
	if err := tokens.WaitN(ctx, min(streamCost+t.Len(), tokens.Burst())); err != nil {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		return 0, refuse(codes.Unavailable, "more streams connect at once than can be served before this one's deadline")
	}
	s.metrics.admitted.Inc()
	return time.Since(began), nil
}
