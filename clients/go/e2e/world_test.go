// Real processes for the tests: a server of the checkout, and workers; each is ended by its process id.

package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	sw "stepwell.example/stepwell"
)

const startWithin = 30 * time.Second

// TestMain makes the test program a worker too: that is how a test gets one that it can kill.
func TestMain(m *testing.M) {
	if name := os.Getenv("E2E_WORKER"); name != "" {
		if err := apps[name]().Run(sw.Capacity(20)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// process is a child whose output goes to a file. It is killed when the test ends.
type process struct {
	t    *testing.T
	log  string
	make func() *exec.Cmd
	cmd  *exec.Cmd
	done chan error
}

func (p *process) start() {
	p.t.Helper()
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		p.t.Fatal(err)
	}
	defer out.Close()
	cmd := p.make()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	p.cmd, p.done = cmd, done
}

// kill is kill -9, and waits for the end.
func (p *process) kill() {
	if p.cmd != nil {
		_ = p.cmd.Process.Kill() // it may have ended by itself
		<-p.done
		p.cmd = nil
	}
}

// stop is SIGTERM, and waits for the end.
func (p *process) stop() error {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
	err := <-p.done
	p.cmd = nil
	return err
}

func (p *process) text() string {
	data, _ := os.ReadFile(p.log) // not there yet
	return string(data)
}

// world is a dev server on SQLite with a client.
type world struct {
	t       *testing.T
	ctx     context.Context
	dir     string
	address string
	server  *process
	client  *sw.Client
	effects string
	workers int
}

func newWorld(t *testing.T) *world {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	w := &world{t: t, ctx: ctx, dir: t.TempDir(), address: freeAddress(t)}
	w.effects = filepath.Join(w.dir, "effects")
	python := python(t)
	w.server = w.process("server", func() *exec.Cmd {
		database := "sqlite:///" + filepath.Join(w.dir, "stepwell.db")
		return exec.Command(python, "-m", "stepwell", "dev", "--database", database, "--listen", w.address)
	})
	w.startServer()
	client, err := sw.NewClient(sw.Address(w.address))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	w.client = client
	return w
}

func (w *world) startServer() {
	w.t.Helper()
	before := strings.Count(w.server.text(), "listens on")
	w.server.start()
	w.until("the server listens", func() bool { return strings.Count(w.server.text(), "listens on") > before })
}

// process makes a child that is killed with the test; what it said is shown if the test failed.
func (w *world) process(name string, make func() *exec.Cmd) *process {
	p := &process{t: w.t, log: filepath.Join(w.dir, name+".log"), make: func() *exec.Cmd {
		cmd := make()
		cmd.Dir = w.dir
		cmd.Env = append(cmd.Env, environment("STEPWELL_ADDRESS="+w.address, "EFFECTS="+w.effects, "PYTHONUNBUFFERED=1")...)
		return cmd
	}}
	w.t.Cleanup(func() {
		p.kill()
		if w.t.Failed() {
			w.t.Logf("%s said:\n%s", name, p.text())
		}
	})
	return p
}

// worker is this program, as a worker of an app. It is not started yet.
func (w *world) worker(app string) *process {
	w.workers++
	return w.process(fmt.Sprintf("%s-%d", app, w.workers), func() *exec.Cmd {
		cmd := exec.Command(os.Args[0])
		cmd.Env = []string{"E2E_WORKER=" + app}
		return cmd
	})
}

// pythonWorker serves a Python file.
func (w *world) pythonWorker(file string) *process {
	path, err := filepath.Abs(file)
	if err != nil {
		w.t.Fatal(err)
	}
	python := python(w.t)
	return w.process(filepath.Base(file), func() *exec.Cmd { return exec.Command(python, path) })
}

// connected waits until a process has a session.
func (w *world) connected(p *process) sw.WorkerInfo {
	w.t.Helper()
	var found sw.WorkerInfo
	w.until("the worker is connected", func() bool {
		workers, err := w.client.Workers(w.ctx)
		if err != nil {
			w.t.Fatal(err)
		}
		for _, one := range workers {
			if one.Connected && strings.HasSuffix(one.Instance, fmt.Sprintf(":%d", p.cmd.Process.Pid)) {
				found = one
				return true
			}
		}
		return false
	})
	return found
}

// serve starts a worker and waits until it is connected.
func (w *world) serve(app string) *process {
	w.t.Helper()
	p := w.worker(app)
	p.start()
	w.connected(p)
	return p
}

// until waits for what no call can wait for.
func (w *world) until(what string, look func() bool) {
	w.t.Helper()
	for end := time.Now().Add(startWithin); !look(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("%s: not within %s", what, startWithin)
		}
	}
}

// start starts a run.
func (w *world) start(function string, input any) *sw.RunHandle {
	w.t.Helper()
	run, err := w.client.Start(w.ctx, function, input)
	if err != nil {
		w.t.Fatal(err)
	}
	return run
}

// reached waits until a run fits.
func (w *world) reached(run *sw.RunHandle, what string, fits func(*sw.RunState) bool) *sw.RunState {
	w.t.Helper()
	var state *sw.RunState
	w.until(what, func() bool {
		found, err := run.Status(w.ctx)
		if err != nil {
			w.t.Fatal(err)
		}
		if state = found; state.Status.Ended() && !fits(state) {
			w.t.Fatalf("%s: it is %s %+v", what, state.Status, state.Failure)
		}
		return fits(state)
	})
	return state
}

func (w *world) parked(run *sw.RunHandle) *sw.RunState {
	w.t.Helper()
	return w.reached(run, "it is parked", func(s *sw.RunState) bool { return s.Status == sw.StatusParked })
}

// send sends an event and answers the run that it started, if one.
func (w *world) send(name string, data any) string {
	w.t.Helper()
	id, err := w.client.Send(w.ctx, sw.NewEvent{Name: name, Data: data})
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

// check runs a part of a test in the same world.
func (w *world) check(name string, part func(*testing.T, *world)) {
	w.t.Run(name, func(t *testing.T) {
		inner := *w
		inner.t = t
		part(t, &inner)
	})
}

func (w *world) advance(by time.Duration) {
	w.t.Helper()
	if moved, err := w.client.AdvanceClock(w.ctx, by, 0); err != nil || !moved.Complete {
		w.t.Fatalf("%+v %v", moved, err)
	}
}

// executed is how often the body of a step began.
func (w *world) executed(runID, key string) int {
	data, _ := os.ReadFile(w.effects) // none yet
	return strings.Count(string(data), runID+" "+key+"\n")
}

// result waits for a run and decodes its output.
func result[T any](w *world, run *sw.RunHandle) T {
	w.t.Helper()
	var value T
	if err := run.Result(w.ctx, &value); err != nil {
		state, _ := run.Status(w.ctx)
		w.t.Fatalf("%v; the run: %+v", err, state)
	}
	return value
}

func python(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(root, ".venv", "bin", "python")
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: these tests need the server of the checkout; run `make setup` in %s", err, root)
	}
	return path
}

// environment is ours without Stepwell's variables, and those given.
func environment(given ...string) []string {
	var kept []string
	for _, one := range os.Environ() {
		if !strings.HasPrefix(one, "STEPWELL_") && !strings.HasPrefix(one, "E2E_") {
			kept = append(kept, one)
		}
	}
	return append(kept, given...)
}

func freeAddress(t *testing.T) string {
	t.Helper()
	probe, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer probe.Close()
	return probe.Addr().String()
}
