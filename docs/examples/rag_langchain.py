"""Answers from documents: LangChain and Qdrant, embeddings and answer both from the network."""

import os
from pathlib import Path

os.environ["LANGSMITH_TRACING"] = "false"  # no prompt goes anywhere but to the gateway

from langchain_core.documents import Document
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from langchain_qdrant import QdrantVectorStore

QUESTION = "Who was the last to look after the lamp?"

# OPENAI_BASE_URL and OPENAI_API_KEY say where. Left on, check_embedding_ctx_length would fetch the
# vocabulary of OpenAI's models and send tokens of that, which mean nothing to another model.
embeddings = OpenAIEmbeddings(
    model=os.environ.get("ASSAY_EMBEDDING_MODEL", "all-minilm-l6-v2"),
    check_embedding_ctx_length=False,
)
model = ChatOpenAI(model=os.environ.get("ASSAY_MODEL", "smollm2-135m"), max_tokens=64)

documents = [
    Document(path.read_text(), metadata={"file": path.name})
    for path in sorted((Path(__file__).parent / "data" / "island").glob("*.txt"))
]
store = QdrantVectorStore.from_documents(documents, embeddings, location=":memory:")
found = store.similarity_search_with_score(QUESTION, k=2)

prompt = ChatPromptTemplate.from_template("{context}\n\nAnswer from the text above: {question}")
context = "\n\n".join(document.page_content for document, _ in found)
answer = (prompt | model).invoke({"context": context, "question": QUESTION})
print(QUESTION)
print("answer:", answer.content.strip())
for document, score in found:
    print(f"source: {document.metadata['file']} {score:.3f}")
