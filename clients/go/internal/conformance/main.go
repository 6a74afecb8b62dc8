// Command conformance is the conformance worker in Go: the functions that tests/conformance/live/README.md describes, as
// somebody would write them in Go.
package main

import (
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strconv"

	sw "stepwell.example/stepwell"
)

func main() {
	parked, err := strconv.Atoi(os.Getenv("MAX_PARKED"))
	if err != nil {
		log.Fatal(err)
	}
	app := sw.NewApp("conformance",
		// steps and values
		sw.Function("sequential", sw.On(), sequential), sw.Function("echo", sw.On(), echo), sw.Function("numbers", sw.On(), numbers),
		sw.Function("nothing", sw.On(), nothing), sw.Function("absent", sw.On(), absent), sw.Function("loop", sw.On(), loop),
		sw.Function("nested", sw.On(), nested), sw.Function("large", sw.On(), large),
		sw.Function("unserializable", sw.On(), unserializable), sw.Function("misuse", sw.On(), misuse),
		sw.Function("stable", sw.On(), stable), sw.Function("strict", sw.On(), strict, sw.Strict()),
		// side by side
		sw.Function("together", sw.On(), together), sw.Function("branches", sw.On(), branches),
		sw.Function("spread", sw.On(), spread), sw.Function("timers", sw.On(), timers), sw.Function("first", sw.On(), first),
		sw.Function("race", sw.On(), race), sw.Function("undone", sw.On(), undone), sw.Function("mixed", sw.On(), mixed),
		sw.Function("carried", sw.On(), carried), sw.Function("held_pair", sw.On(), heldPair),
		// time and events
		sw.Function("sleeper", sw.On(), sleeper), sw.Function("until", sw.On(), until),
		sw.Function("waiter", sw.On("conformance/wait"), waiter), sw.Function("seen", sw.On(), seen),
		sw.Function("triggered", triggers, triggered), sw.Function("sender", sw.On(), sender),
		sw.Function("receiver", sw.On("conformance/sent"), receiver),
		// other functions, failures, the end from outside
		sw.Function("parent", sw.On(), parent), sw.Function("forever", sw.On(), forever), sw.Function("deep", sw.On(), deep),
		sw.Function("flaky", sw.On(), flaky), sw.Function("fails", sw.On(), fails, thrice),
		sw.Function("uncaught", sw.On(), uncaught, sw.Retries(0)), sw.Function("slow", sw.On(), slow),
		sw.Function("cleanup", sw.On(), cleanup), sw.Function("told", sw.On(), told),
		sw.Function("deadline", sw.On(), told, sw.Timeout(hour)), sw.Function("stubborn", sw.On(), stubborn),
	)
	name := fmt.Sprintf("%s:%d", os.Getenv("WORKER_INSTANCE"), os.Getpid())
	if err := app.Run(sw.Instance(name), sw.MaxParked(parked)); err != nil {
		log.Fatal(err)
	}
}

// folder is where effects are noted and gates are opened.
var folder = os.Getenv("CONFORMANCE")

// effect notes that a body executes.
func effect(step sw.StepInfo) error {
	file, err := os.OpenFile(filepath.Join(folder, "effects"), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = fmt.Fprintf(file, "%s\t%s\t%d\tgo\n", step.RunID, step.Key, step.Attempt)
	return err
}
