// The options of a function that limit, gather and order its runs, as the worker registers them; and labels.

package stepwell_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	sw "stepwell.example/stepwell"
	stepwellv1 "stepwell.example/stepwell/v1"
)

func idle(sw.Context, sw.Event[any]) (any, error)      { return nil, nil }
func gathers(sw.Context, []sw.Event[any]) (any, error) { return nil, nil }
func flowing(opts ...sw.FunctionOption) sw.Declared {
	return sw.Function("a", sw.On("x"), idle, opts...)
}
func gathering(b sw.Batch, o ...sw.FunctionOption) sw.Declared {
	return sw.BatchFunction("a", sw.On("x"), b, gathers, o...)
}

func registered(t *testing.T, function sw.Declared) *stepwellv1.FunctionSpec {
	t.Helper()
	specs, err := sw.NewApp("shop", function).Specs()
	if err != nil {
		t.Fatal(err)
	}
	return specs[0]
}

func TestAFunctionWithoutFlowSaysNothingOfIt(t *testing.T) {
	if spec := registered(t, flowing(sw.Retries(1))); spec.Flow != nil || len(spec.Labels) != 0 {
		t.Fatal(spec)
	}
}

func TestEveryOptionOfFlowIsSaid(t *testing.T) {
	spec := registered(t, flowing(
		sw.Concurrency{Limit: 10}, sw.Concurrency{Limit: 2, Key: "event.data.user", Scope: sw.ScopeApp, Hold: sw.HoldRun},
		sw.Throttle{Limit: 5, Period: time.Minute, Burst: 2},
		sw.RateLimit{Limit: 1, Period: 24 * time.Hour, Key: "event.data.user"},
		sw.Debounce{Period: 30 * time.Second, MaxWait: 5 * time.Minute},
		sw.Priority("event.data.vip ? 120 : 0"),
		sw.Labels{"gpu": "a100"},
	))
	want := &stepwellv1.Flow{
		Concurrency: []*stepwellv1.Concurrency{
			{Limit: 10, Scope: stepwellv1.Concurrency_SCOPE_FUNCTION, Hold: stepwellv1.Concurrency_HOLD_EXECUTING},
			{Limit: 2, Key: "event.data.user", Scope: stepwellv1.Concurrency_SCOPE_APP, Hold: stepwellv1.Concurrency_HOLD_RUN},
		},
		Throttle:  &stepwellv1.Throttle{Limit: 5, PeriodMs: 60_000, Burst: 2},
		RateLimit: &stepwellv1.RateLimit{Limit: 1, PeriodMs: 86_400_000, Key: "event.data.user"},
		Debounce:  &stepwellv1.Debounce{PeriodMs: 30_000, MaxWaitMs: 300_000},
		Priority:  "event.data.vip ? 120 : 0",
	}
	if !proto.Equal(spec.Flow, want) || spec.Labels["gpu"] != "a100" {
		t.Fatal(spec)
	}
	batch := registered(t, gathering(sw.Batch{MaxSize: 100, Timeout: 5 * time.Second, Key: "event.data.tenant", If: "event.data.n > 1"})).Flow
	want = &stepwellv1.Flow{Batch: &stepwellv1.Batch{MaxSize: 100, TimeoutMs: 5000, Key: "event.data.tenant", Condition: "event.data.n > 1"}}
	if !proto.Equal(batch, want) {
		t.Fatal(batch)
	}
	for given, mode := range map[sw.Mode]stepwellv1.Singleton_Mode{
		"": stepwellv1.Singleton_MODE_SKIP, sw.ModeSkip: stepwellv1.Singleton_MODE_SKIP, sw.ModeCancel: stepwellv1.Singleton_MODE_CANCEL,
	} {
		one := registered(t, flowing(sw.Singleton{Key: "event.data.user", Mode: given})).Flow.Singleton
		if one.Mode != mode || one.Key != "event.data.user" {
			t.Fatal(one)
		}
	}
}

func TestABadOptionOfFlowIsRefusedByName(t *testing.T) {
	var five []sw.FunctionOption
	for _, key := range []string{"a", "b", "c", "d", "e"} {
		five = append(five, sw.Concurrency{Limit: 1, Key: key})
	}
	second := sw.Batch{MaxSize: 5, Timeout: time.Second}
	many := sw.Labels{}
	for _, name := range strings.Split("abcdefghijklmnopq", "") {
		many[name] = ""
	}
	for why, function := range map[string]sw.Declared{
		"Concurrency: Limit 0 is not a whole number from 1 to 1000000":          flowing(sw.Concurrency{}),
		"Concurrency: two limits count the same runs":                           flowing(sw.Concurrency{Limit: 1}, sw.Concurrency{Limit: 2, Scope: sw.ScopeFunction}),
		`Concurrency: Scope "galaxy" is none of function, app, environment`:     flowing(sw.Concurrency{Limit: 1, Scope: "galaxy"}),
		`Concurrency: Hold "on" is none of executing, run`:                      flowing(sw.Concurrency{Limit: 1, Hold: "on"}),
		"Concurrency: at most 4 limits":                                         flowing(five...),
		"Throttle: Period 10ms is not 1000 ms to 366 days":                      flowing(sw.Throttle{Limit: 1, Period: 10 * time.Millisecond}),
		"Throttle: Burst -1 is not a whole number from 0 to 1000000":            flowing(sw.Throttle{Limit: 1, Period: time.Minute, Burst: -1}),
		"RateLimit: Period 8808h0m0s is not 1000 ms to 366 days":                flowing(sw.RateLimit{Limit: 1, Period: 367 * 24 * time.Hour}),
		"Debounce: MaxWait 1s is not 10000 ms to 366 days":                      flowing(sw.Debounce{Period: 10 * time.Second, MaxWait: time.Second}),
		"Batch: MaxSize 1 is not a whole number from 2 to 1000":                 gathering(sw.Batch{MaxSize: 1, Timeout: time.Second}),
		"Batch: a function gathers events by Batch or by Debounce, not by both": gathering(second, sw.Debounce{Period: time.Second}),
		`Singleton: Mode "wait" is none of skip, cancel`:                        flowing(sw.Singleton{Mode: "wait"}),
		"Singleton: not together with Batch or Debounce":                        gathering(second, sw.Singleton{}),
		"Priority: an expression is at most 2048 bytes":                         flowing(sw.Priority(strings.Repeat("x", 3000))),
		`Priority: "\xff" is not a CEL expression`:                              flowing(sw.Priority("\xff")),
		"Labels: at most 16": flowing(many),
		`Labels: "": names and values are printable text of at most 128 bytes`:    flowing(sw.Labels{"": "x"}),
		`Labels: "gpu": names and values are printable text of at most 128 bytes`: flowing(sw.Labels{"gpu": "a\n"}),
		"it has no code": sw.BatchFunction[any, any]("a", sw.On("x"), second, nil),
	} {
		_, err := sw.NewApp("shop", function).Specs()
		if !errors.Is(err, sw.ErrRegistration) || !strings.Contains(err.Error(), "function a: "+why) {
			t.Errorf("%q: %v", why, err)
		}
	}
}

func TestAServerWithoutFlowIsRefusedByAFunctionThatHasIt(t *testing.T) {
	s := newFakeServer(t)
	old := welcome(1)
	old.Capabilities = []string{"timeouts"}
	s.greet = func(*link) (*stepwellv1.Welcome, error) { return old, nil }
	timed := sw.Function("timed", sw.On(), idle, sw.Timeout(time.Hour))
	_, ended := working(t, s, sw.NewApp("test", timed, flowing(sw.Concurrency{Limit: 1})))
	if hello := s.link().hello[0]; !slices.Contains(hello.Capabilities, "flow") || hello.Functions[1].Flow == nil {
		t.Fatal(hello)
	}
	err := <-ended
	var refused *sw.APIError
	if !errors.As(err, &refused) || refused.Reason != "CAPABILITY_MISSING" || !strings.HasSuffix(refused.Message, "flow of functions, which a has") {
		t.Fatal(err)
	}
	old.Capabilities = append(old.Capabilities, "flow")
	working(t, s, sw.NewApp("test", flowing(sw.Concurrency{Limit: 1})))
	l := s.link()
	l.assign("run_1", "a", 1)
	l.waitFor(has((*stepwellv1.Commands).GetCompletes))
}

func TestAWorkerSaysItsLabels(t *testing.T) {
	s := newFakeServer(t)
	t.Setenv("STEPWELL_LABELS", " gpu=a100, region = eu,plain=")
	working(t, s, sw.NewApp("test", flowing()))
	labels := s.link().hello[0].Labels
	if len(labels) != 3 || labels["gpu"] != "a100" || labels["region"] != "eu" || labels["plain"] != "" {
		t.Fatal(labels)
	}
	working(t, s, sw.NewApp("test", flowing()), sw.Labels{"gpu": "none"})
	if labels := s.link().hello[0].Labels; len(labels) != 1 || labels["gpu"] != "none" {
		t.Fatal(labels)
	}
	for text, why := range map[string]string{
		"gpu": `"gpu" is not name=value`, "a=1,a=2": `"a=2" is not name=value, or its name stands twice`, "=x": "names and values are printable",
		"a=1,": `"" is not name=value`,
	} {
		t.Setenv("STEPWELL_LABELS", text)
		if err := sw.NewApp("test", flowing()).Serve(t.Context()); !errors.Is(err, sw.ErrUsage) || !strings.Contains(err.Error(), why) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
