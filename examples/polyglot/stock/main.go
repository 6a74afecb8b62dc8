// Command stock reserves what is ordered, and asks for the price of its shipping in TypeScript.
package main

import (
	"context"
	"fmt"
	"log"

	"stepwell.example/stepwell"
)

type order struct {
	Order  int    `json:"order"`
	Item   string `json:"item"`
	Pieces int    `json:"pieces"`
}

type quote struct {
	Carrier string `json:"carrier"`
	Cents   int64  `json:"cents"`
}

type reservation struct {
	PriceCents int64  `json:"price_cents"`
	Carrier    string `json:"carrier"`
}

// OutOfStock is caught by its name, in Python.
type OutOfStock struct{ order order }

func (e *OutOfStock) Error() string {
	return fmt.Sprintf("there are no %d of %s", e.order.Pieces, e.order.Item)
}

const (
	stock      = 10
	pieceCents = 1500
)

var reserve = stepwell.Function("reserve", stepwell.On(),
	func(ctx stepwell.Context, event stepwell.Event[order]) (reservation, error) {
		if event.Data.Pieces > stock {
			return reservation{}, stepwell.NonRetriable(&OutOfStock{event.Data})
		}
		goods, err := stepwell.Run(ctx, "take from the shelf", func(context.Context) (int64, error) {
			return int64(event.Data.Pieces) * pieceCents, nil
		})
		if err != nil {
			return reservation{}, err
		}
		shipping, err := stepwell.Invoke[quote](ctx, "shipping/quote", event.Data)
		return reservation{goods + shipping.Cents, shipping.Carrier}, err
	})

func main() {
	log.Fatal(stepwell.NewApp("stock", reserve).Run())
}
