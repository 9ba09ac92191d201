"""LangChain: a chain that streams, a typed answer, and an agent's loop with a tool."""

import os
from typing import Annotated

os.environ["LANGSMITH_TRACING"] = "false"  # no prompt goes anywhere but to the gateway

from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, Field

# OPENAI_BASE_URL and OPENAI_API_KEY say where.
model = ChatOpenAI(
    model=os.environ.get("ASSAY_MODEL", "smollm2-135m"),
    max_tokens=120,
    include_response_headers=True,  # which name the receipt
)

prompt = ChatPromptTemplate.from_template("Why is {thing} {how}? One sentence.")
chain = prompt | model | StrOutputParser()
for text in chain.stream({"thing": "grass", "how": "green"}):
    print(text, end="", flush=True)
print()


class Plant(BaseModel):
    name: str = Field(max_length=30)
    leaves: int = Field(ge=0, le=9)


# The schema of the class is the grammar of the answer: what comes is a Plant.
plant = model.with_structured_output(Plant, method="json_schema").invoke("Invent a plant.")
print("structured:", repr(plant))


@tool
def count_letters(word: Annotated[str, Field(max_length=20)]) -> int:
    """How many letters a word has."""
    return len(word)


# The model must call; LangChain runs the call, and what it gives goes back to the model.
asked = [HumanMessage("How many letters has the word grass?")]
called = model.bind_tools([count_letters], tool_choice="required").invoke(asked)
asked.append(called)
for call in called.tool_calls:
    result = count_letters.invoke(call)
    assert isinstance(result, ToolMessage)
    print("tool:", call["name"], call["args"], "->", result.content)
    asked.append(result)
answer = model.bind_tools([count_letters]).invoke(asked)
print("tokens of the last answer:", answer.usage_metadata["output_tokens"])
print("its receipt:", answer.response_metadata["headers"]["x-assay-receipt"])
