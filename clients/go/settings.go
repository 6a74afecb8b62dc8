// Settings of clients and workers: the only reader of the environment variables STEPWELL_*.

package stepwell

import (
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"
)

const (
	defaultAddress  = "127.0.0.1:7777"
	defaultCapacity = 500
	capacityMax     = 100_000
	defaultParked   = 1000
	parkedMax       = 50_000 // a server takes up a session of at most both together
	defaultDrain    = 30 * time.Second
	defaultCall     = 30 * time.Second
)

// ClientOption is an option of NewClient: Address, Environment, CallTimeout, Tracing.
type ClientOption interface{ applyClient(*clientSettings) }

// WorkerOption is an option of App.Run and App.Serve: Address, Environment, Deployment, Instance, Capacity, MaxParked,
// DrainTimeout, Labels, Logger, Tracing.
type WorkerOption interface{ applyWorker(*workerSettings) }

type clientSettings struct {
	address     string
	environment string
	timeout     time.Duration
	tracer      Tracer // nil: nothing is traced
}

type workerSettings struct {
	address     string
	environment string
	deployment  string
	instance    string
	capacity    int
	maxParked   int
	drain       time.Duration
	labels      Labels
	log         *slog.Logger
	now         func() time.Time
	tracer      Tracer // nil: nothing is traced
}

func newClientSettings(opts []ClientOption) clientSettings {
	s := clientSettings{timeout: defaultCall, address: env("ADDRESS", defaultAddress), environment: env("ENVIRONMENT", "")}
	for _, opt := range opts {
		opt.applyClient(&s)
	}
	return s
}

func newWorkerSettings(opts []WorkerOption) (workerSettings, error) {
	s := workerSettings{
		address: env("ADDRESS", defaultAddress), environment: env("ENVIRONMENT", ""), deployment: env("DEPLOYMENT", ""),
		capacity: defaultCapacity, maxParked: defaultParked, drain: defaultDrain, log: slog.Default(), now: time.Now,
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	s.instance = fmt.Sprintf("%s:%d", host, os.Getpid())
	if s.labels, err = parseLabels(env("LABELS", "")); err != nil {
		return s, err
	}
	for _, opt := range opts {
		opt.applyWorker(&s)
	}
	if err := s.labels.check(); err != nil {
		return s, err
	}
	if s.capacity < 1 || s.capacity > capacityMax || s.maxParked < 0 || s.maxParked > parkedMax || s.drain < 0 {
		return s, usageError("Capacity must be between 1 and %d, MaxParked between 0 and %d, DrainTimeout at least 0", capacityMax, parkedMax)
	}
	return s, nil
}

// parseLabels reads "gpu=a100,region=eu".
func parseLabels(text string) (Labels, error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	labels := Labels{}
	for _, part := range strings.Split(text, ",") {
		name, value, ok := strings.Cut(part, "=")
		name = strings.TrimSpace(name)
		if _, twice := labels[name]; !ok || twice {
			return nil, usageError("STEPWELL_LABELS: %q is not name=value, or its name stands twice", part)
		}
		labels[name] = strings.TrimSpace(value)
	}
	return labels, nil
}

func env(name, otherwise string) string {
	if value := os.Getenv("STEPWELL_" + name); value != "" {
		return value
	}
	return otherwise
}

// AddressOption is made by Address.
type AddressOption string

// Address of the server: "host:port", or "https://host:port" for TLS. Several, with commas between them, are nodes of one
// server: the first is drawn, and the next is tried when one fails or drains. Without it STEPWELL_ADDRESS, or 127.0.0.1:7777.
func Address(address string) AddressOption { return AddressOption(address) }

func (a AddressOption) applyClient(s *clientSettings) { s.address = string(a) }
func (a AddressOption) applyWorker(s *workerSettings) { s.address = string(a) }

// EnvironmentOption is made by Environment.
type EnvironmentOption string

// Environment at the server. Without it STEPWELL_ENVIRONMENT, or the server's default.
func Environment(name string) EnvironmentOption { return EnvironmentOption(name) }

func (e EnvironmentOption) applyClient(s *clientSettings) { s.environment = string(e) }
func (e EnvironmentOption) applyWorker(s *workerSettings) { s.environment = string(e) }

type (
	clientOption func(*clientSettings)
	workerOption func(*workerSettings)
)

func (o clientOption) applyClient(s *clientSettings) { o(s) }
func (o workerOption) applyWorker(s *workerSettings) { o(s) }

// CallTimeout bounds calls whose context has no deadline, retries included. Default 30 s.
func CallTimeout(d time.Duration) ClientOption {
	return clientOption(func(s *clientSettings) { s.timeout = d })
}

// Deployment is the id of this build of the app. Without it STEPWELL_DEPLOYMENT, or a hash of the registration and of the
// program's file.
func Deployment(id string) WorkerOption {
	return workerOption(func(s *workerSettings) { s.deployment = id })
}

// Instance names this process, for people. Default: host and process id.
func Instance(name string) WorkerOption {
	return workerOption(func(s *workerSettings) { s.instance = name })
}

// Capacity is how many runs execute at once; parked ones do not count. Default 500.
func Capacity(runs int) WorkerOption {
	return workerOption(func(s *workerSettings) { s.capacity = runs })
}

// MaxParked is how many parked runs are kept in memory; the longest parked beyond that are given back. Default
// 1,000, at most 50,000.
func MaxParked(runs int) WorkerOption {
	return workerOption(func(s *workerSettings) { s.maxParked = runs })
}

// DrainTimeout is how long executing bodies may take to finish once the worker is to stop. Default 30 s.
func DrainTimeout(d time.Duration) WorkerOption {
	return workerOption(func(s *workerSettings) { s.drain = d })
}

// Logger of the worker. Default: slog.Default().
func Logger(log *slog.Logger) WorkerOption {
	return workerOption(func(s *workerSettings) { s.log = log })
}
