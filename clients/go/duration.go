// Durations: how long one may be, and its milliseconds on the wire.

package stepwell

import "time"

// durationMax is the longest sleep, wait, time-out or delay.
const durationMax = 366 * 24 * time.Hour

// toMs rounds up, so that a wait is never shorter than asked for.
func toMs(d time.Duration) int64 {
	return int64((d + time.Millisecond - 1) / time.Millisecond)
}

// checkDuration answers a usage error for what is negative or too long.
func checkDuration(what string, d time.Duration) error {
	if d < 0 {
		return usageError("%s: %s is negative", what, d)
	}
	if d > durationMax {
		return usageError("%s: %s is longer than 366 days", what, d)
	}
	return nil
}
