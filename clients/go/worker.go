// A worker process: serves an app's functions until it is told to stop, then drains.

package stepwell

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"google.golang.org/protobuf/proto"

	stepwellv1 "stepwell.example/stepwell/v1"
)

const (
	leaveWithin  = 2 * time.Second
	unwindWithin = time.Second
)

// Run serves the functions until SIGTERM or SIGINT, then drains; a second signal leaves at once. Its error is an
// ErrRegistration or ErrLimit, or an *APIError where the server refuses the registration or is too old for it: trying again
// would not help.
func (a *App) Run(opts ...WorkerOption) error {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(signals)
	stop, halt := make(chan struct{}), make(chan struct{})
	done := make(chan struct{})
	defer close(done)
	go func() {
		for _, next := range []chan struct{}{stop, halt} {
			select {
			case <-signals:
				close(next)
			case <-done:
				return
			}
		}
	}()
	return a.serve(context.Background(), stop, halt, opts)
}

// Serve is Run until ctx is done; signals are the caller's. Bodies and functions see the values of ctx, not its end: when it
// is done, those that execute may finish, for as long as DrainTimeout says.
func (a *App) Serve(ctx context.Context, opts ...WorkerOption) error {
	return a.serve(context.WithoutCancel(ctx), ctx.Done(), nil, opts)
}

func (a *App) serve(base context.Context, stop, halt <-chan struct{}, opts []WorkerOption) error {
	if a.err != nil {
		return a.err
	}
	settings, err := newWorkerSettings(opts)
	if err != nil {
		return err
	}
	w, err := newWorker(a, base, settings)
	if err != nil {
		return err
	}
	return w.run(stop, halt)
}

type worker struct {
	settings workerSettings
	host     *host
	session  *session
}

func newWorker(app *App, base context.Context, settings workerSettings) (*worker, error) {
	specs := app.specs()
	size := 0
	for _, spec := range specs {
		size += proto.Size(spec)
	}
	if size > registrationBytes {
		return nil, limitError("app %s registers %d bytes, more than %d: split the app", app.name, size, registrationBytes)
	}
	if settings.deployment == "" {
		id, err := deploymentID(specs)
		if err != nil {
			return nil, err
		}
		settings.deployment = id
	}
	hello := &stepwellv1.Hello{
		Environment: settings.environment, App: app.name, Deployment: clean(settings.deployment),
		Instance: clean(settings.instance), Sdk: "go", SdkVersion: Version, Functions: specs, Capabilities: []string{capTimeouts, capFlow}, Labels: settings.labels,
	}
	nodes, err := newAddresses(settings.address)
	if err != nil {
		return nil, err
	}
	h := newHost(app, base, settings)
	s := &session{host: h, addresses: nodes, hello: hello, log: settings.log}
	s.capacity.Store(uint32(settings.capacity))
	settings.log.Info("serving", "app", app.name, "functions", len(specs), "deployment", settings.deployment)
	return &worker{settings, h, s}, nil
}

// run serves until stop, then drains; halt ends the draining at once.
func (w *worker) run(stop, halt <-chan struct{}) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	defer close(w.host.over)
	ended := make(chan error, 1)
	go func() { ended <- w.session.run(ctx) }()
	select {
	case err := <-ended:
		w.host.evictAll()
		return err
	case <-stop:
	}
	err, over := w.drain(halt, ended)
	w.host.evictAll()
	if over {
		return err
	}
	w.awaitBodies(halt)
	return w.leave(ended, cancel)
}

// drain takes no new work and gives executing bodies time to finish; over tells that the session ended by itself.
func (w *worker) drain(halt <-chan struct{}, ended <-chan error) (err error, over bool) {
	log := w.settings.log
	log.Info("draining", "executing_bodies", w.host.bodies.executing.Load())
	w.session.capacity.Store(0)
	w.host.send(&stepwellv1.ConnectRequest{Frame: &stepwellv1.ConnectRequest_Capacity{Capacity: &stepwellv1.Capacity{}}})
	w.host.drain()
	late := time.NewTimer(w.settings.drain)
	defer late.Stop()
	select {
	case <-w.host.idle:
		return nil, false
	case err := <-ended:
		return err, true
	case <-halt:
	case <-late.C:
	}
	log.Warn("leaving while bodies execute: they are interrupted and will run again", "executing_bodies", w.host.bodies.executing.Load())
	return nil, false
}

// awaitBodies gives interrupted bodies a moment to end, so that none runs beside its repetition.
func (w *worker) awaitBodies(halt <-chan struct{}) {
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for until := time.Now().Add(unwindWithin); w.host.bodies.executing.Load() > 0 && time.Now().Before(until); {
		select {
		case <-halt:
			return
		case <-look.C:
		}
	}
}

func (w *worker) leave(ended <-chan error, cancel context.CancelFunc) error {
	goodbye := &stepwellv1.Goodbye{Reason: "the worker stops"}
	if w.host.send(&stepwellv1.ConnectRequest{Frame: &stepwellv1.ConnectRequest_Goodbye{Goodbye: goodbye}}) {
		select {
		case err := <-ended:
			return err
		case <-time.After(leaveWithin):
		}
	}
	cancel()
	return <-ended
}
