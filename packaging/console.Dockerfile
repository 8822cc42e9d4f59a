# syntax=docker/dockerfile:1
# The console. Build it from the root of the repository:
#
#     docker build -f packaging/console.Dockerfile -t llmcache-console .
#
# Where it listens on more than the loopback it needs a token: LLMCACHE_CONSOLE_TOKEN, or the one that it prints.

FROM python:3.12-slim-bookworm
COPY clients/python /src/python
RUN pip install --no-cache-dir "/src/python[console]" \
    && useradd --system --no-create-home console
USER console
EXPOSE 8077
ENTRYPOINT ["llmcache", "console"]
CMD ["redis://127.0.0.1:6379", "--host", "0.0.0.0"]
