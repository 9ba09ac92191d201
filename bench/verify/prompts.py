"""What the jobs ask: short chats about many things, the same for every provider."""

from __future__ import annotations

from typing import Final

SYSTEM: Final = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
PERSONA: Final = "You are a helpful AI assistant named Helper"
_TOPICS: Final = (
    "the moon", "how bread rises", "photosynthesis", "the French Revolution", "binary search",
    "why the sky is blue", "how vaccines work", "the rules of chess", "a dragon who fears fire",
    "prime numbers", "the water cycle", "how to make pancakes", "the history of the bicycle",
    "black holes", "recursion in Python", "healthy sleep", "the Great Wall of China",
    "supply and demand", "how volcanoes erupt", "writing a cover letter", "the life of bees",
    "electric cars", "how airplanes fly", "the Roman Empire", "growing tomatoes",
    "how the internet works", "a walk in autumn", "the Pythagorean theorem", "the ozone layer",
    "learning to play guitar", "sorting algorithms", "the solar system", "coffee brewing",
    "public speaking", "the human heart", "how batteries work", "dinosaurs", "time management",
    "the Olympic games", "ocean currents",
)  # fmt: skip
_FORMS: Final = (
    "Tell me about {}.",
    "Explain {} to a ten year old.",
    "Write a short essay on {}.",
    "Give me five facts about {}.",
    "What do most people get wrong about {}?",
    "Write the beginning of a story about {}.",
    "List the main points of a lecture on {}.",
)
JOBS_MAX: Final = len(_TOPICS) * len(_FORMS)


def chat(number: int, system: str | None = SYSTEM) -> str:
    """Job `number`'s prompt in ChatML; without a system message if `system` is None."""
    head = "" if system is None else f"<|im_start|>system\n{system}<|im_end|>\n"
    return f"{head}<|im_start|>user\n{question(number)}<|im_end|>\n<|im_start|>assistant\n"


def question(number: int) -> str:
    """No two of the first JOBS_MAX are equal."""
    assert 0 <= number < JOBS_MAX
    topic = _TOPICS[number * 7 % len(_TOPICS)]
    return _FORMS[(number + number // len(_TOPICS)) % len(_FORMS)].format(topic)
