// The functions that the tests' workers serve.

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	sw "stepwell.example/stepwell"
)

type (
	None   struct{}
	Signup struct {
		UserID int    `json:"user_id"`
		Name   string `json:"name"`
	}
	Booking struct {
		UserID int    `json:"user_id"`
		Room   string `json:"room"`
	}
	Charge  struct{ Amount int64 }
	Receipt struct {
		ID     string `json:"id"`
		Amount int64  `json:"amount"`
	}
)

// quick is a policy that no test has to wait for.
var quick = sw.Retry{Attempts: 4, Initial: 20 * time.Millisecond, Factor: 1, NoJitter: true}

var apps = map[string]func() *sw.App{
	"shop": func() *sw.App {
		return sw.NewApp("shop",
			sw.Function("sequence", sw.On("order/placed"), sequence),
			sw.Function("prices", sw.On(), prices),
			sw.Function("onboard", sw.On("user/signed.up"), onboard),
			sw.Function("buy", sw.On(), buy),
			sw.Function("ship", sw.On("ship/asked"), ship),
			sw.Function("ask", sw.On(), ask),
			sw.Function("flaky", sw.On(), flaky, quick),
			sw.Function("second_try", sw.On(), secondTry, quick),
			sw.Function("refused", sw.On(), refused),
			sw.Function("panics", sw.On(), panics, sw.Retries(0)),
			sw.Function("slow", sw.On(), slow, sw.Retries(0)),
			sw.Function("hold", sw.On("room/held"), hold),
			sw.Function("first_answer", sw.On(), firstAnswer),
			sw.Function("announce", sw.On(), announce),
			sw.Function("large", sw.On(), large),
			sw.Function("crunch", sw.On("crunch/go"), crunch, quick),
		)
	},
	"broken": func() *sw.App {
		return sw.NewApp("broken", sw.Function("f", sw.On("a").If("this is not CEL ("), sequence))
	},
	"misdescribed": func() *sw.App {
		return sw.NewApp("misdescribed", sw.Function("f", sw.On(), sequence, sw.InputSchema(`{"type":"nonsense"}`)))
	},
	"claims": claims,
	"depot":  func() *sw.App { return sw.NewApp("depot", sw.Function("sleepy", sw.On(), sleepy)) },
}

// note is a body whose execution can be counted.
func note[T any](value T) func(context.Context) (T, error) {
	return func(ctx context.Context) (T, error) { return value, effect(ctx) }
}

func effect(ctx context.Context) error {
	file, err := os.OpenFile(os.Getenv("EFFECTS"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	step := sw.CurrentStep(ctx)
	_, err = fmt.Fprintf(file, "%s %s\n", step.RunID, step.Key)
	return err
}

func sequence(ctx sw.Context, event sw.Event[map[string]any]) (string, error) {
	text := ""
	for _, name := range []string{"a", "b", "c"} {
		part, err := sw.Run(ctx, name, note(name))
		if err != nil {
			return "", err
		}
		text += part
	}
	return fmt.Sprint(text, " for ", event.Data["n"]), nil
}

func prices(ctx sw.Context, event sw.Event[[]string]) (map[string]int, error) {
	found := map[string]int{}
	g := sw.NewGroup(ctx)
	for _, item := range event.Data {
		g.Go(item, func(ctx sw.Context) error {
			price, err := sw.Run(ctx, "price", note(len(item)))
			if err != nil {
				return err
			}
			found[item] = price
			return sw.Sleep(ctx, 10*time.Millisecond)
		})
	}
	return found, g.Wait()
}

func onboard(ctx sw.Context, event sw.Event[Signup]) (string, error) {
	if _, err := sw.Run(ctx, "send-welcome", note(event.Data.Name)); err != nil {
		return "", err
	}
	booking, came, err := sw.WaitForEvent[Booking](ctx, "booking/created", sw.Match("data.user_id"), sw.Timeout(4*24*time.Hour))
	switch {
	case err != nil:
		return "", err
	case !came:
		return "reminded", nil
	}
	return "room " + booking.Room, nil
}

func buy(ctx sw.Context, event sw.Event[int64]) (string, error) {
	receipt, err := sw.Invoke[Receipt](ctx, "billing/charge", map[string]int64{"amount": event.Data})
	var failed *sw.StepError
	if errors.As(err, &failed) && errors.Is(err, sw.ErrRunFailed) {
		return "no money: " + failed.Type, nil
	}
	return receipt.ID, err
}

func ship(ctx sw.Context, event sw.Event[Receipt]) (string, error) {
	return sw.Run(ctx, "pack", note(fmt.Sprintf("packed %s for %d", event.Data.ID, event.Data.Amount)))
}

// Question is what ask invokes, and with what.
type Question struct {
	Function string          `json:"function"`
	Input    json.RawMessage `json:"input"`
}

// ask invokes the function that it is told, and answers why that failed.
func ask(ctx sw.Context, event sw.Event[Question]) (string, error) {
	answer, err := sw.Invoke[string](ctx, event.Data.Function, event.Data.Input)
	var failed *sw.StepError
	if errors.As(err, &failed) && errors.Is(err, sw.ErrInvoke) {
		return failed.Failure().Reason + ": " + failed.Message, nil
	}
	return answer, err
}

func flaky(ctx sw.Context, _ sw.Event[None]) (string, error) {
	return sw.Run(ctx, "call", func(ctx context.Context) (string, error) {
		step := sw.CurrentStep(ctx)
		if err := effect(ctx); err != nil {
			return "", err
		}
		switch step.Attempt {
		case 1:
			return "", errors.New("first")
		case 2:
			return "", sw.RetryAfter(10*time.Millisecond, fmt.Errorf("after %s", step.LastError.Message))
		}
		return fmt.Sprintf("attempt %d after %q", step.Attempt, step.LastError.Message), nil
	})
}

func secondTry(ctx sw.Context, _ sw.Event[None]) (string, error) {
	if _, err := sw.Run(ctx, "work", note(1)); err != nil {
		return "", err
	}
	if attempt := sw.Info(ctx).Attempt; attempt > 1 {
		return fmt.Sprintf("attempt %d", attempt), nil
	}
	return "", errors.New("something between the steps broke")
}

// CardError is an error of the user's own.
type CardError struct{ code int }

func (e *CardError) Error() string { return fmt.Sprintf("card refused with %d", e.code) }

func refused(ctx sw.Context, _ sw.Event[None]) (None, error) {
	return sw.Run(ctx, "charge", func(context.Context) (None, error) {
		return None{}, fmt.Errorf("charging: %w", sw.NonRetriable(&CardError{7}))
	})
}

func panics(ctx sw.Context, event sw.Event[string]) (None, error) {
	if event.Data == "between" {
		panic("between the steps")
	}
	return sw.Run(ctx, "step", func(context.Context) (None, error) { panic("in a body") })
}

func slow(ctx sw.Context, _ sw.Event[None]) (string, error) {
	_, err := sw.Run(ctx, "hang", func(ctx context.Context) (None, error) {
		<-ctx.Done()
		return None{}, context.Cause(ctx)
	}, sw.Timeout(50*time.Millisecond))
	if !errors.Is(err, sw.ErrTimeout) {
		return "", fmt.Errorf("no time-out but %w", err)
	}
	_, err = sw.Within(ctx, time.Hour, func(ctx sw.Context) (None, error) {
		_, _, err := sw.WaitForEvent[None](ctx, "never")
		return None{}, err
	})
	if !errors.Is(err, sw.ErrTimeout) {
		return "", fmt.Errorf("no time-out but %w", err)
	}
	return "both took too long", nil
}

func hold(ctx sw.Context, _ sw.Event[None]) (none None, err error) {
	defer func() {
		_, failed := sw.Run(ctx, "release", note("released"))
		err = errors.Join(err, failed)
	}()
	return sw.Run(ctx, "guard", func(ctx context.Context) (None, error) {
		if err := effect(ctx); err != nil {
			return None{}, err
		}
		<-ctx.Done()
		return None{}, ctx.Err()
	})
}

func firstAnswer(ctx sw.Context, _ sw.Event[None]) (string, error) {
	answer := func(event string) func(sw.Context) (None, error) {
		return func(ctx sw.Context) (None, error) {
			_, _, err := sw.WaitForEvent[None](ctx, event)
			return None{}, err
		}
	}
	winner, _, err := sw.Race(ctx, answer("answer/mail"), answer("answer/phone"))
	if err != nil {
		return "", err
	}
	return []string{"mail", "phone"}[winner], nil
}

func announce(ctx sw.Context, event sw.Event[[]string]) ([]string, error) {
	var events []sw.NewEvent
	for _, title := range event.Data {
		events = append(events, sw.NewEvent{Name: "news/item", Data: map[string]string{"title": title}})
	}
	return sw.SendEvents(ctx, events)
}

func large(ctx sw.Context, event sw.Event[int]) (int, error) {
	text, err := sw.Run(ctx, "make", func(context.Context) ([]byte, error) { return make([]byte, event.Data), nil })
	return len(text), err
}

// crunch does some of everything, with a count of its own that must come out right.
func crunch(ctx sw.Context, event sw.Event[map[string]int]) (int, error) {
	total := 0
	add := func(ctx sw.Context, name string, n int) error {
		got, err := sw.Run(ctx, name, note(n))
		total += got
		return err
	}
	for n := range 5 {
		if err := add(ctx, "one", n); err != nil {
			return 0, err
		}
	}
	g := sw.NewGroup(ctx)
	for _, branch := range []string{"left", "right"} {
		g.Go(branch, func(ctx sw.Context) error {
			for n := range 3 {
				if err := add(ctx, "two", n); err != nil {
					return err
				}
				if err := sw.Sleep(ctx, 15*time.Millisecond); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return 0, err
	}
	child, err := sw.Invoke[string](ctx, "ship", Receipt{ID: "r", Amount: int64(event.Data["n"])})
	if err != nil {
		return 0, err
	}
	return total + len(child), nil
}

func sleepy(ctx sw.Context, event sw.Event[int64]) (string, error) {
	return "woke", sw.Sleep(ctx, time.Duration(event.Data)*time.Millisecond)
}
