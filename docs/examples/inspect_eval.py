"""An inspect-ai evaluation whose log names its prompt and its data by their sha256.

inspect eval docs/examples/inspect_eval.py --model openai-api/assay/MODEL
"""

import hashlib
import json
from pathlib import Path

from inspect_ai import Task, task
from inspect_ai.dataset import json_dataset
from inspect_ai.model import GenerateConfig, ResponseSchema
from inspect_ai.scorer import Score, Target, accuracy, scorer, stderr
from inspect_ai.solver import TaskState, generate, prompt_template
from inspect_ai.util import JSONSchema

DATA = Path(__file__).parent / "data" / "capitals-v1.jsonl"
PROMPT = Path(__file__).parent / "data" / "capitals-v1.txt"  # another prompt is another file

# The node draws only what this allows: an answer that ends by itself can be scored.
ANSWER = ResponseSchema(
    name="answer",
    json_schema=JSONSchema(
        type="object",
        properties={"capital": JSONSchema(type="string", pattern="^[A-Z][a-z]{2,12}$")},
        required=["capital"],
        additionalProperties=False,
    ),
    strict=True,
)


@scorer(metrics=[accuracy(), stderr()])
def names_the_capital():
    async def score(state: TaskState, target: Target) -> Score:
        try:
            capital = json.loads(state.output.completion)["capital"]
        except ValueError:  # cut by max_tokens
            return Score(value=0, answer=state.output.completion)
        return Score(value=int(capital == target.text), answer=capital)

    return score


@task
def capitals() -> Task:
    return Task(
        dataset=json_dataset(str(DATA)),
        solver=[prompt_template(PROMPT.read_text()), generate()],
        scorer=names_the_capital(),
        config=GenerateConfig(response_schema=ANSWER, max_tokens=64, temperature=0),
        version=1,
        metadata={one.name: hashlib.sha256(one.read_bytes()).hexdigest() for one in (DATA, PROMPT)},
    )
