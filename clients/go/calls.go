// Unary calls and streams of a client; unary ones are tried again while the server is unreachable.

package stepwell

import (
	"context"
	"errors"
	"io"
	"iter"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc"
)

// slack is how much longer than its wait a call that waits on the server may take.
const slack = 5 * time.Second

// unary is a method of a generated client.
type unary[Req, Res any] func(context.Context, Req, ...grpc.CallOption) (Res, error)

// ask makes a call that may safely be made twice, until it succeeds or its time is over: the context's deadline, or timeout.
func ask[Req, Res any](ctx context.Context, timeout time.Duration, method unary[Req, Res], request Req) (Res, error) {
	ctx, cancel := bounded(ctx, timeout)
	defer cancel()
	for failures := 0; ; failures++ {
		response, err := method(ctx, request)
		if err == nil {
			return response, nil
		}
		err = apiError(err)
		var refused *APIError
		if !errors.As(err, &refused) || !refused.Retriable() {
			return response, err
		}
		delay := max(refused.RetryAfter, rand.N(min(backoffMax, backoffFirst<<min(failures, 10))))
		if deadline, _ := ctx.Deadline(); time.Until(deadline) <= delay {
			return response, err
		}
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return response, err
		}
	}
}

// once makes a call a single time.
func once[Req, Res any](ctx context.Context, timeout time.Duration, method unary[Req, Res], request Req) (Res, error) {
	ctx, cancel := bounded(ctx, timeout)
	defer cancel()
	response, err := method(ctx, request)
	return response, apiError(err)
}

func bounded(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if _, has := ctx.Deadline(); has {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, timeout)
}

// pages walks a listing: each is asked for when it is needed.
func pages[Res, T any](next func(token string) (Res, error), token func(Res) string, items func(Res) []T) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for after, more := "", true; more; more = after != "" {
			page, err := next(after)
			if err != nil {
				var none T
				yield(none, err)
				return
			}
			for _, item := range items(page) {
				if !yield(item, nil) {
					return
				}
			}
			after = token(page)
		}
	}
}

// watch are the items of a streaming call as they come.
func watch[Req, Res, T any](
	ctx context.Context, method func(context.Context, Req, ...grpc.CallOption) (grpc.ServerStreamingClient[Res], error),
	request Req, items func(*Res) []T,
) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		call, err := method(ctx, request)
		if err != nil {
			yield(none, apiError(err))
			return
		}
		for {
			response, err := call.Recv()
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield(none, apiError(err))
				return
			}
			for _, item := range items(response) {
				if !yield(item, nil) {
					return
				}
			}
		}
	}
}
