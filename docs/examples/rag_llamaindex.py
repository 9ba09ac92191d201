"""Answers from documents: LlamaIndex and Qdrant, embeddings and answer both from the network."""

import os
from pathlib import Path

from llama_index.core import Document, StorageContext, VectorStoreIndex
from llama_index.core.node_parser import SentenceSplitter
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike
from llama_index.vector_stores.qdrant import QdrantVectorStore
from qdrant_client import QdrantClient

URL, KEY = os.environ["OPENAI_BASE_URL"], os.environ["OPENAI_API_KEY"]
QUESTION = "When does the last boat leave on a Sunday?"

embeddings = OpenAILikeEmbedding(
    model_name=os.environ.get("ASSAY_EMBEDDING_MODEL", "all-minilm-l6-v2"),
    api_base=URL,
    api_key=KEY,
    embed_batch_size=16,
)
llm = OpenAILike(
    model=os.environ.get("ASSAY_MODEL", "smollm2-135m"),
    api_base=URL,
    api_key=KEY,
    is_chat_model=True,
    context_window=8192,  # OpenAILike assumes 3900
    max_tokens=64,
)

# Qdrant runs in this process; give it path="..." to keep the vectors, or url="..." of a server.
store = QdrantVectorStore("island", client=QdrantClient(":memory:"))
documents = [
    Document(text=path.read_text(), metadata={"file": path.name})
    for path in sorted((Path(__file__).parent / "data" / "island").glob("*.txt"))
]
index = VectorStoreIndex.from_documents(
    documents,
    storage_context=StorageContext.from_defaults(vector_store=store),
    embed_model=embeddings,
    transformations=[SentenceSplitter(chunk_size=256, chunk_overlap=32)],  # the model reads 512
)

answer = index.as_query_engine(llm=llm, similarity_top_k=2).query(QUESTION)
print(QUESTION)
print("answer:", answer.response.strip())
for source in answer.source_nodes:
    print(f"source: {source.metadata['file']} {source.score:.3f}")
