"""What a scenario's nodes compute with: its one model, at the speed of each machine."""

from __future__ import annotations

from typing import Final

from assay_coordinator.core.coordinator import Listed
from assay_node.core.parameters import Served
from assay_simnet.evidence import CLASSES, VOCABULARY, Answers, Engine
from assay_simnet.links import Line
from assay_simnet.population import Speed, speed
from assay_simnet.scenario import Scenario

MODEL: Final = bytes([7]) * 32


class Machines:
    """Speeds, engines and what they serve: one object for all nodes of a kind."""

    def __init__(self, scenario: Scenario) -> None:
        model = scenario.model
        self.answers = Answers()  # which of them were not computed as promised
        self.engines = {kind: Engine(self.answers, kind) for kind in CLASSES}
        self.speeds: dict[str, Speed] = {
            name: speed(one, model.parameters, model.size)
            for name, one in scenario.profiles.items()
        }
        self.listed = Listed(
            name="simulated",
            model=MODEL,
            card=bytes(32),
            context=model.context,
            price_in=model.price_in,
            price_out=model.price_out,
        )
        self._profiles, self._network = scenario.profiles, scenario.network
        self._served: dict[tuple[str, str], tuple[Served]] = {}

    def line(self, profile: str) -> Line:
        """One more machine's, as fast as its profile says, or else the network."""
        one, network = self._profiles[profile], self._network
        return Line(1e6 * one.up_mbps or network.up, 1e6 * one.down_mbps or network.down)

    def served(self, kind: str, profile: str) -> tuple[Served]:
        """What nodes of one arithmetic and machine serve."""
        known = self._served.get((kind, profile))
        if known is None:
            pace = self.speeds[profile]
            one = Served(
                model=self.listed.model,
                class_id=f"{kind}/F",
                slots=pace.slots,
                context=self.listed.context,
                n_vocab=VOCABULARY,
                eog=frozenset(),
                prefill_rate=round(1e9 / pace.prefill_us),
                decode_rate=round(1e9 / pace.decode_us),
            )
            known = self._served[kind, profile] = (one,)
        return known
