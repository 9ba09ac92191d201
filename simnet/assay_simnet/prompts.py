"""What the demo's client asks."""

from typing import Final

PROMPTS: Final = (
    "What is the capital of France?",
    "Explain photosynthesis to a child.",
    "Write two lines about the sea.",
    "Name three uses of copper.",
    "How do I boil an egg?",
    "What makes the sky blue?",
    "Give me a tip for learning the piano.",
    "Who wrote Hamlet, and when?",
    "Describe a winter morning.",
    "What is a prime number?",
    "Why do cats purr?",
    "Suggest a name for a small bakery.",
    "How far away is the Moon?",
    "What is the difference between weather and climate?",
    "Tell me about the Roman aqueducts.",
    "What should I pack for a hike?",
    "How does a bicycle stay upright?",
    "Write a short poem about rain.",
    "What is gravity?",
    "How is glass made?",
    "Give an example of a metaphor.",
    "What do bees do in winter?",
    "Explain what a library is for.",
    "How can I sleep better?",
)
