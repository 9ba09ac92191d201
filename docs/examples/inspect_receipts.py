"""Checks the sha256 that evaluations' logs name, and keeps the receipts of their answers.

python docs/examples/inspect_receipts.py RECEIPTS LOG...
"""

import base64
import hashlib
import sys
from pathlib import Path

from inspect_ai.event import ModelEvent
from inspect_ai.log import read_eval_log
from openai import OpenAI

DATA = Path(__file__).parent / "data"
client = OpenAI()  # the gateway that was asked: it keeps the newest receipts

with Path(sys.argv[1]).open("wb") as receipts:
    for path in sys.argv[2:]:
        log = read_eval_log(path)
        for name, sha256 in log.eval.metadata.items():
            same = hashlib.sha256((DATA / name).read_bytes()).hexdigest() == sha256
            print(name, sha256[:16], "as evaluated" if same else "has CHANGED since")
        for sample in log.samples:
            for event in sample.events:
                if not isinstance(event, ModelEvent) or event.error:
                    continue
                for name in event.call.response["assay"]["receipts"]:
                    told = client.get(f"/receipts/{name}", cast_to=dict[str, object])
                    record = base64.b64decode(told["record"])
                    receipts.write(len(record).to_bytes(4, "big") + record)
            score = sample.scores["names_the_capital"]
            print(sample.id, "answered", score.answer, "by node", told["node"][:16])
