// Channels to the server's nodes.

package stepwell

import (
	"context"
	"crypto/tls"
	"errors"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

const messageBytesMax = 16 << 20

// dial makes a channel. The address is "host:port", or "https://host:port" for TLS.
func dial(address string) (*grpc.ClientConn, error) {
	creds := insecure.NewCredentials()
	if rest, ok := strings.CutPrefix(address, "https://"); ok {
		address, creds = rest, credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12})
	}
	return grpc.NewClient(strings.TrimPrefix(address, "http://"),
		grpc.WithTransportCredentials(creds),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second, PermitWithoutStream: true}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: 5 * time.Second,
		}),
		// Our own retries repeat a request id and know their deadline.
		grpc.WithDisableRetry(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(messageBytesMax), grpc.MaxCallSendMsgSize(messageBytesMax)),
	)
}

// channel calls one node at a time: the next one, once that is unavailable.
type channel struct {
	addresses *addresses
	mu        sync.Mutex
	conns     map[string]*grpc.ClientConn // those that were needed so far
}

func newChannel(nodes *addresses) *channel {
	return &channel{addresses: nodes, conns: map[string]*grpc.ClientConn{}}
}

// Invoke makes a unary call, once.
func (c *channel) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	address, conn, err := c.current()
	if err != nil {
		return err
	}
	return c.note(address, conn.Invoke(ctx, method, args, reply, opts...))
}

// NewStream begins a streaming call.
func (c *channel) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	address, conn, err := c.current()
	if err != nil {
		return nil, err
	}
	stream, err := conn.NewStream(ctx, desc, method, opts...)
	return stream, c.note(address, err)
}

func (c *channel) current() (string, *grpc.ClientConn, error) {
	address := c.addresses.next()
	c.mu.Lock()
	defer c.mu.Unlock()
	conn := c.conns[address]
	if conn == nil {
		var err error
		if conn, err = dial(address); err != nil {
			return "", nil, err
		}
		c.conns[address] = conn
	}
	return address, conn, nil
}

func (c *channel) note(address string, err error) error {
	if status.Code(err) == codes.Unavailable {
		c.addresses.failed(address)
	}
	return err
}

func (c *channel) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []error
	for _, conn := range c.conns {
		all = append(all, conn.Close())
	}
	return errors.Join(all...)
}
