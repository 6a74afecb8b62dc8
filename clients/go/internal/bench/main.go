// Command bench is the benchmark's worker in Go: what bench/app.py does at event bench/three, at bench/other.
package main

import (
	"context"
	"flag"
	"log"
	"strings"

	sw "stepwell.example/stepwell"
)

func main() {
	address := flag.String("address", "", "host:port of the server")
	capacity := flag.Int("capacity", 1000, "runs at once")
	steps := flag.Int("steps", 3, "steps of a run")
	payload := flag.Int("payload", 200, "bytes of event data; a step's result is half of it")
	flag.Parse()
	output := strings.Repeat("r", *payload/2-2)
	body := func(context.Context) (string, error) { return output, nil }
	three := sw.Function("three", sw.On("bench/other"), func(ctx sw.Context, _ sw.Event[any]) (result string, err error) {
		for range *steps {
			if result, err = sw.Run(ctx, "body", body); err != nil {
				return "", err
			}
		}
		return result, nil
	})
	log.Fatal(sw.NewApp("bench-other", three).Run(sw.Address(*address), sw.Capacity(*capacity)))
}
