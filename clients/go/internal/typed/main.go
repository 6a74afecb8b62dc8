// Command typed serves a function that says what it takes, and one that invokes what it is told, for tests between languages.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log"

	sw "stepwell.example/stepwell"
)

// Reservation is what stock/reserve takes.
type Reservation struct {
	Item   string `json:"item"`
	Pieces int    `json:"pieces"`
}

// Question is what stock/ask invokes, and with what.
type Question struct {
	Function string          `json:"function"`
	Input    json.RawMessage `json:"input"`
}

func main() {
	app := sw.NewApp("stock", sw.Function("reserve", sw.On("reserve/asked"), reserve), sw.Function("ask", sw.On(), ask))
	log.Fatal(app.Run())
}

func reserve(_ sw.Context, event sw.Event[Reservation]) (string, error) {
	return fmt.Sprintf("reserved %d of %s", event.Data.Pieces, event.Data.Item), nil
}

// ask answers what the other function gives, or why there is nothing.
func ask(ctx sw.Context, event sw.Event[Question]) (string, error) {
	answer, err := sw.Invoke[string](ctx, event.Data.Function, event.Data.Input)
	var failed *sw.StepError
	if errors.As(err, &failed) {
		failure := failed.Failure()
		return failure.Reason + ": " + failure.Message, nil
	}
	return answer, err
}
