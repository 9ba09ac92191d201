// Models: what the catalogue has, at which price, and who serves it.

import { el } from "../dom.js";
import { ask } from "./api.js";
import { bytes, count, money, plural, rate, short } from "./format.js";
import { badge, card, facts } from "./parts.js";

const PER_MILLION = 1_000n; // prices are for a thousand tokens

export const modelsView = {
  title: () => "Models",
  load: (params, signal) => ask("models", signal),
  draw: ({ items }) => {
    if (!items.length) {
      return card("No models", el("p", { class: "empty" },
        "The catalogue is empty: coordinator start has a --catalogue."));
    }
    return el("div", { class: "cards" }, items.map(one));
  },
};

function one(model) {
  return el("section", { class: "card" },
    el("div", { class: "head" }, el("h2", { class: "break" }, model.name), supply(model)),
    facts(
      ["Served by", el("a", { href: `#/nodes?model=${model.model}` }, plural(model.nodes, "node")),
        `, ${count(model.free_slots)} of ${plural(model.slots, "slot")} free`],
      ["Speed", speed(model.decode_tokens_per_second)],
      ["A million tokens in", price(model.price_in)],
      ["A million tokens out", price(model.price_out)],
      ["Context", plural(model.context, "token")],
      model.license && ["License", model.license],
      model.architecture && ["File", `${model.architecture}, ${model.quantization}, ${bytes(model.size_bytes)}`],
      model.source && ["Source", model.source],
      ["Model", short(model.model)],
      ["Card", short(model.card)],
    ));
}

function supply(model) {
  if (!model.allowed) {
    return badge({ look: "bad", text: "denied", means: "Governance does not allow it to be served." });
  }
  if (!model.nodes) return badge({ look: "warn", text: "nobody serves it", means: "No node offers it now." });
  if (!model.free_slots) return badge({ look: "warn", text: "busy", means: "All slots are taken." });
  return badge({ look: "good", text: "served", means: "It can be asked." });
}

function speed(rates) {
  if (!rates) return "–";
  const [mean, least, most] = [rates.mean, rates.least, rates.most].map(rate);
  return least === most ? most : `${mean} on average, from ${least} to ${most}`;
}

function price(perThousand) {
  const amount = BigInt(perThousand) * PER_MILLION;
  return [money(amount), " credits"];
}
