// Keys of a run's steps: a name's first call is the name itself, later ones are name:2, name:3 (H5).

package stepwell

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	stepwellv1 "stepwell.example/stepwell/v1"
)

const keyBytesFallback = 128

// keys are those given so far, in one run of the code.
type keys struct {
	counts   map[string]int
	given    map[string]bool
	keyBytes int
	stepsMax int
}

func newKeys(limits *stepwellv1.Limits) keys {
	k := keys{counts: map[string]int{}, given: map[string]bool{}, keyBytes: int(limits.GetKeyBytes()), stepsMax: int(limits.GetJournalSteps())}
	if k.keyBytes == 0 {
		k.keyBytes = keyBytesFallback
	}
	return k
}

// give makes the key of the next call of a name.
func (k *keys) give(name string) (string, error) {
	count := k.counts[name] + 1
	key := name
	if count > 1 {
		key = name + ":" + strconv.Itoa(count)
	}
	for k.given[key] { // a step was named "charge:2" by hand
		count++
		key = name + ":" + strconv.Itoa(count)
	}
	if len(key) > k.keyBytes {
		return "", limitError("step name %.40q… makes a key longer than %d bytes (key_bytes)", name, k.keyBytes)
	}
	if k.stepsMax > 0 && len(k.given) >= k.stepsMax {
		return "", limitError("step %s is one more than the %d steps of a run (journal_steps)", key, k.stepsMax)
	}
	k.counts[name] = count
	k.given[key] = true
	return key, nil
}

// checkName answers a usage error unless the name may stand for a step or a branch.
func checkName(name string) error {
	if name == "" || name[0] == '$' || strings.Contains(name, "#") || !utf8.ValidString(name) ||
		strings.ContainsFunc(name, unicode.IsControl) {
		return usageError("step name %q is empty, begins with '$', or holds '#', a control character or what is not UTF-8", name)
	}
	return nil
}
