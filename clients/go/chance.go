// What is random in a run: drawn from its id as proto/README.md says, the same in each replay and language.

package stepwell

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
)

// chance is what the code of a run has drawn so far.
type chance struct {
	numbers *rand.Rand
	uuids   int
}

// random makes numbers that the run's id decides.
func (c *chance) random(runID string) *rand.Rand {
	if c.numbers == nil {
		c.numbers = rand.New(&randomWords{runID: runID})
	}
	return c.numbers
}

func (c *chance) uuid(runID string) string {
	id := drawn(runID, "uuid", c.uuids)
	c.uuids++
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:16])
}

// randomWords is a rand.Source. Of a word a rand.Rand takes the low 53 bits for a Float64, and so do the other languages.
type randomWords struct {
	runID string
	count int
}

func (w *randomWords) Uint64() uint64 {
	digest := drawn(w.runID, "random", w.count)
	w.count++
	return binary.BigEndian.Uint64(digest[:8])
}

func drawn(runID, purpose string, n int) [sha256.Size]byte {
	return sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%d", runID, purpose, n))
}
