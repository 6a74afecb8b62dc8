// The programs of README.md, built and run.

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	sw "stepwell.example/stepwell"
)

var block = regexp.MustCompile("(?ms)^```go\n(.*?)^```$")

// TestTheExamplesOfTheDocumentationDoWhatTheySay builds each, and runs those that need no more than a server.
func TestTheExamplesOfTheDocumentationDoWhatTheySay(t *testing.T) {
	w := newWorld(t)
	programs := map[string]string{}
	for n, source := range examples(t, "../README.md") {
		name := fmt.Sprintf("README-%d", n+1)
		programs[name] = build(t, w.dir, name, source)
	}
	if len(programs) < 8 {
		t.Fatalf("only %d examples", len(programs))
	}

	worker := w.process("hello", func() *exec.Cmd { return exec.Command(programs["README-1"]) })
	worker.start()
	w.connected(worker)
	event, err := w.client.GetEvent(w.ctx, w.send("demo/hello", map[string]string{"name": "Ada"}))
	if err != nil {
		t.Fatal(err)
	}
	run := w.client.Handle(event.RunIDs[0])
	w.parked(run)
	w.advance(2e9)
	if got := result[string](w, run); got != "Hello, Ada!" {
		t.Fatal(got)
	}

	parallel := w.process("parallel", func() *exec.Cmd { return exec.Command(programs["README-3"]) })
	parallel.start()
	w.connected(parallel)
	if got := result[int](w, w.start("parallel/total", []string{"fig", "plum"})); got != 7 {
		t.Fatal(got)
	}
	answer := w.start("parallel/answer", nil)
	w.parked(answer)
	w.send("answer/phone", nil)
	if got := result[string](w, answer); got != "phone" {
		t.Fatal(got)
	}

	rooms := w.process("rooms", func() *exec.Cmd { return exec.Command(programs["README-4"]) })
	rooms.start()
	w.connected(rooms)
	hold := w.start("rooms/hold", "east")
	w.parked(hold)
	if _, err := hold.Cancel(w.ctx, ""); err != nil {
		t.Fatal(err)
	}
	w.reached(hold, "it is cancelled", func(s *sw.RunState) bool { return s.Status == sw.StatusCancelled })

	claims := w.process("claims", func() *exec.Cmd { return exec.Command(programs["README-5"]) })
	claims.start()
	w.connected(claims)
	desk := w.start("claims/desk", 7)
	w.parked(desk)
	w.advance(14 * day)
	if got := result[string](w, desk); got != "too late" {
		t.Fatal(got)
	}

	client := w.process("client", func() *exec.Cmd { return exec.Command(programs["README-6"]) })
	client.start()
	if err := <-client.done; err != nil {
		t.Fatal(err, client.text())
	}
	client.cmd = nil
	for name, prints := range map[string]string{"README-7": "mocked [sleep mail]\n", "README-8": "42\n"} {
		if said, err := exec.Command(programs[name]).Output(); err != nil || string(said) != prints {
			t.Fatalf("%s: %s %v", name, said, err)
		}
	}
}

func examples(t *testing.T, page string) (sources []string) {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, found := range block.FindAllStringSubmatch(string(text), -1) {
		sources = append(sources, found[1])
	}
	return sources
}

// build makes a program of a source as if it stood in this module.
func build(t *testing.T, dir, name, source string) string {
	t.Helper()
	module, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, name+".go")
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(module, name, "main.go"): file}})
	if err != nil {
		t.Fatal(err)
	}
	for path, content := range map[string][]byte{file: []byte(source), file + ".json": overlay} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	program := filepath.Join(dir, name)
	command := exec.Command("go", "build", "-overlay", file+".json", "-o", program, "./"+name)
	command.Dir = module
	if said, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, said)
	}
	formatted := exec.Command("gofmt", "-l", file)
	if said, err := formatted.CombinedOutput(); err != nil || len(said) > 0 {
		t.Fatalf("%s is not formatted: %v %s", name, err, said)
	}
	return program
}
