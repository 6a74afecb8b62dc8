// The addresses of a server's nodes: which is tried next.

package stepwell

import (
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// addresses are tried in their order; one that failed goes to the back.
type addresses struct {
	mu   sync.Mutex
	list []string
}

// parseAddresses reads "host:port,host:port". Each may begin with "https://", for TLS.
func parseAddresses(text string) ([]string, error) {
	var list []string
	for _, one := range strings.Split(text, ",") {
		one = strings.TrimSpace(one)
		bare := strings.TrimPrefix(strings.TrimPrefix(one, "http://"), "https://")
		host, port, err := net.SplitHostPort(bare)
		number, wrong := strconv.ParseUint(port, 10, 16)
		if err != nil || wrong != nil || number == 0 || host == "" || strings.ContainsAny(host, " /@") {
			return nil, usageError("address %q is not host:port, or https://host:port for TLS", one)
		}
		list = append(list, one)
	}
	return list, nil
}

// newAddresses reads a setting. The first one is drawn, so that processes spread over the nodes; the order is kept.
func newAddresses(text string) (*addresses, error) {
	list, err := parseAddresses(text)
	if err != nil {
		return nil, err
	}
	first := rand.IntN(len(list))
	return &addresses{list: slices.Concat(list[first:], list[:first])}, nil
}

// next is the address to try.
func (a *addresses) next() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.list[0]
}

// failed moves an address to the back, unless another call has done so already.
func (a *addresses) failed(address string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.list[0] == address {
		a.list = append(slices.Clone(a.list[1:]), address)
	}
}
