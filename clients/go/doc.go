// Package stepwell writes durable functions in Go.
//
// A function is ordinary code; every step in it is remembered. The process may crash, be deployed or wait four days in
// between: the function goes on where it was, and what was done is not done again.
//
//	var Drip = stepwell.Function("drip", stepwell.On("user/signed.up"),
//		func(ctx stepwell.Context, ev stepwell.Event[SignedUp]) (string, error) {
//			_, err := stepwell.Run(ctx, "send-welcome", func(ctx context.Context) (Sent, error) {
//				return mail.Welcome(ctx, ev.Data.Email)
//			})
//			if err != nil {
//				return "", err
//			}
//			booking, ok, err := stepwell.WaitForEvent[Booking](ctx, "booking/created",
//				stepwell.Match("data.user_id"), stepwell.Timeout(4*24*time.Hour))
//			…
//		})
//
//	func main() {
//		log.Fatal(stepwell.NewApp("shop", Drip).Run())
//	}
//
// The code between steps runs again after a crash, over the results that are recorded. It must take the same way each
// time: I/O, clocks and random numbers belong in a step. Branches run in a Group, one at a time, each until it waits.
package stepwell

// Version of this library.
const Version = "0.1.0"
