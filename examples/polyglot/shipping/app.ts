// Says what shipping costs, to whoever asks, and ships what is paid.

import { App, event } from "stepwell";

interface Order {
  readonly order: number;
  readonly item: string;
  readonly pieces: number;
}

const paid = event<{ order: number; carrier: string }>("order/paid");
const shipped = event<{ order: number; parcel: string }>("order/shipped");

const app = new App("shipping");

app.function({ id: "quote" }, ({ event, step }) => {
  const { pieces }: Order = event.data;
  return step.run("ask the carriers", () => ({ carrier: pieces > 5 ? "a lorry" : "a bicycle", cents: 100 * pieces }));
});

app.function({ id: "ship", on: paid }, async ({ event, step }) => {
  const { order, carrier } = event.data;
  const parcel = await step.run("label the parcel", ({ token }) => `${carrier.slice(2)}-${order}-${token.length}`);
  await step.sendEvent(shipped, { order, parcel });
});

await app.run();
