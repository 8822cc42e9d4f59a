"""An agent whose threads are kept, whose nodes and model calls are cached: LangGraph and LangChain over llmcache.

pip install 'llmcache-client[langchain,langgraph]'
"""

from __future__ import annotations

import os
import sys

import redis
from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage

from llmcache.integrations.langchain import LlmcacheMiddleware
from llmcache.integrations.langgraph import LlmcacheSaver


def main(url: str) -> list[str]:
    client = redis.from_url(url)
    # Stands for your model: it has two answers, and a third question would fail.
    model = GenericFakeChatModel(messages=iter([AIMessage("Paris."), AIMessage("Rome.")]))
    agent = create_agent(model, tools=[], middleware=[LlmcacheMiddleware(client)], checkpointer=LlmcacheSaver(client))
    said = []
    for thread, question in (("1", "Capital of France?"), ("2", "Capital of France?"), ("3", "Capital of Italy?")):
        state = agent.invoke({"messages": [HumanMessage(question)]}, {"configurable": {"thread_id": thread}})
        said.append(state["messages"][-1].content)
    return said


if __name__ == "__main__":
    print(main(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("REDIS_URL", "redis://127.0.0.1:6379")))
