// When and how often a failed body, or the function itself, is tried again. The server does the waiting.

package stepwell

import (
	"time"

	stepwellv1 "stepwell.example/stepwell/v1"
)

const attemptsMax = 100

// Retry is a retry policy, an option of functions and of Run. Fields that are zero take the default beside them.
type Retry struct {
	// Attempts in all, the first included. Default 4, at most 100.
	Attempts int
	// Initial is the delay before the second attempt. Default one second.
	Initial time.Duration
	// Factor by which each further delay is longer. Default 2, at most 1,000.
	Factor float64
	// Max is the longest delay. Default ten minutes.
	Max time.Duration
	// NoJitter makes each delay itself, not a random part of it.
	NoJitter bool
}

// Retries is how often a body is tried again: n + 1 attempts in all.
func Retries(n int) Retry {
	if n < 0 {
		return Retry{Attempts: -1} // refused where it is used
	}
	return Retry{Attempts: n + 1}
}

func (r Retry) policy() (*stepwellv1.RetryPolicy, error) {
	if r.Attempts == 0 {
		r.Attempts = 4
	}
	switch {
	case r.Attempts < 1 || r.Attempts > attemptsMax:
		return nil, usageError("retries: the attempts are not between 1 and %d", attemptsMax)
	case r.Factor != 0 && !(r.Factor >= 1 && r.Factor <= 1000):
		return nil, usageError("retries: factor %v is not between 1 and 1,000", r.Factor)
	}
	for _, delay := range []time.Duration{r.Initial, r.Max} {
		if err := checkDuration("retries", delay); err != nil {
			return nil, err
		}
	}
	policy := &stepwellv1.RetryPolicy{
		MaxAttempts: uint32(r.Attempts), InitialMs: uint64(toMs(r.Initial)), Factor: r.Factor, MaxMs: uint64(toMs(r.Max)),
	}
	if r.NoJitter {
		policy.Jitter = stepwellv1.RetryPolicy_JITTER_NONE
	}
	return policy, nil
}

func (r Retry) applyRun(o *runOptions)           { o.retry = &r }
func (r Retry) applyFunction(o *functionOptions) { o.retry = r }
