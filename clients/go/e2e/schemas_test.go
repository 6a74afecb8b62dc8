// Typed calls between Go and Python: a wrong shape, or an unknown function, is an error before anything starts.

package e2e

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	sw "stepwell.example/stepwell"
)

// runsOf counts the runs of a function.
func (w *world) runsOf(function string) (count int) {
	w.t.Helper()
	for _, err := range w.client.ListRuns(w.ctx, sw.RunFilter{FunctionID: function}) {
		if err != nil {
			w.t.Fatal(err)
		}
		count++
	}
	return count
}

func TestCallsBetweenGoAndPythonAreTyped(t *testing.T) {
	w := newWorld(t)
	w.serve("shop")
	python := w.pythonWorker("billing.py")
	python.start()
	w.connected(python)

	for _, one := range []struct{ asker, function, input, answer string }{
		{"shop/ask", "billing/refund", `{"receipt":"r","amount":5}`, "5 back for r"},
		{"shop/ask", "billing/refund", `{"receipt":"r","amount":"5"}`, "INPUT_MISMATCH: input.amount does not fit"},
		{"shop/ask", "billing/refund", `{"amount":5}`, "INPUT_MISMATCH: input does not fit"},
		{"shop/ask", "billing/refund", `null`, "INPUT_MISMATCH: input does not fit"},
		{"shop/ask", "billing/nobody", `{}`, "FUNCTION_NOT_FOUND: "},
		{"billing/ask", "shop/ship", `{"id":"r","amount":5}`, "packed r for 5"},
		{"billing/ask", "shop/ship", `{"id":"r","amount":"5"}`, "INPUT_MISMATCH: input.amount does not fit"},
		{"billing/ask", "shop/ship", `{"id":"r"}`, "INPUT_MISMATCH: input does not fit"},
		{"billing/ask", "shop/ship", `null`, "INPUT_MISMATCH: input does not fit"},
		{"billing/ask", "shop/nobody", `{}`, "FUNCTION_NOT_FOUND: "},
	} {
		answer := result[string](w, w.start(one.asker, Question{one.function, json.RawMessage(one.input)}))
		if !strings.HasPrefix(answer, one.answer) {
			t.Errorf("%s asks %s with %s: %s", one.asker, one.function, one.input, answer)
		}
	}
	if ships, refunds := w.runsOf("shop/ship"), w.runsOf("billing/refund"); ships != 1 || refunds != 1 {
		t.Errorf("%d and %d runs: what does not fit must start none", ships, refunds)
	}

	for function, fields := range map[string][]string{"shop/ship": {"id", "amount"}, "billing/refund": {"receipt", "amount"}} {
		_, err := w.client.Start(w.ctx, function, map[string]any{fields[0]: "r", fields[1]: "5"})
		var refused *sw.APIError
		if !errors.As(err, &refused) || refused.Reason != "INPUT_MISMATCH" || !errors.Is(err, sw.ErrInvalidArgument) ||
			len(refused.Violations) != 1 || refused.Violations[0].Field != "input.amount" {
			t.Errorf("%s: %v", function, err)
		}
	}

	statuses, err := w.client.SendMany(w.ctx, []sw.NewEvent{
		{Name: "ship/asked", Data: Receipt{"r", 1}},
		{Name: "ship/asked", Data: map[string]any{"id": "r", "amount": 1.5}},
		{Name: "refund/asked", Data: map[string]any{}},
		{Name: "news/item", Data: map[string]any{}},
	}, "")
	if err != nil || len(statuses) != 4 {
		t.Fatal(statuses, err)
	}
	for n, want := range []string{"ACCEPTED ", "REFUSED EVENT_MISMATCH", "REFUSED EVENT_MISMATCH", "ACCEPTED "} {
		if got := statuses[n].Outcome + " " + statuses[n].Reason; got != want {
			t.Errorf("event %d: %+v", n, statuses[n])
		}
	}

	info, err := w.client.GetFunction(w.ctx, "billing/refund")
	if err != nil || !strings.Contains(string(info.InputSchema), `"receipt"`) || string(info.OutputSchema) != `{"type":"string"}` {
		t.Errorf("%+v %v", info, err)
	}
}

func TestASchemaThatIsNoneEndsTheWorker(t *testing.T) {
	w := newWorld(t)
	misdescribed := w.worker("misdescribed")
	misdescribed.start()
	if err := <-misdescribed.done; err == nil {
		t.Fatal("it ended without an error")
	}
	misdescribed.cmd = nil
	if text := misdescribed.text(); !strings.Contains(text, "BAD_SCHEMA") || !strings.Contains(text, "function misdescribed/f: input_schema") {
		t.Fatal(text)
	}
}
