"""Agents: a real client of the Model Context Protocol, over HTTP, on a running app."""

from __future__ import annotations

import ast
import asyncio

import pytest
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client

import lampe
from app.page import build
from app.settings import Settings
from lampe.errors import InputError
from lampe.methods import METHODS


@pytest.fixture(scope="module")
def address(small):
    page = build(Settings(small["llama"], 16, 6_000, mcp=True))
    url = page.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    yield f"{url.rstrip('/')}/gradio_api/mcp/"
    page.demo.close()


def asking(address, what):
    """What comes of a session with the server."""

    async def session():
        async with streamable_http_client(address) as (reading, writing, _), ClientSession(reading, writing) as client:
            await client.initialize()
            return await what(client)

    return asyncio.run(session())


def test_every_endpoint_is_a_tool_that_says_what_it_takes(address):
    tools = {tool.name: tool for tool in asking(address, lambda client: client.list_tools()).tools}
    assert set(tools) == {"ask", "document", "cut", "position_map", "methods", "needle", "needle_grid"}
    for tool in tools.values():
        assert tool.description
        for name, field in tool.inputSchema["properties"].items():
            assert field.get("description") or name == "path", f"{tool.name}: {name}"
    assert set(tools["ask"].inputSchema["required"]) == {"text", "question"}


def test_tools_give_what_the_library_gives(address):
    async def calls(client):
        return [
            await client.call_tool("position_map", {"length": 12_000, "mapping_length": 4096}),
            await client.call_tool("methods", {}),
            await client.call_tool(
                "ask", {"text": "The lamp is green. " * 40, "question": "What?", "max_new_tokens": 3}
            ),
            await client.call_tool("needle", {"length": 400, "method": "rope"}),
        ]

    shown, methods, asked, needle = (answer.content for answer in asking(address, calls))
    found = ast.literal_eval(shown[0].text)
    expected = lampe.LampeConfig(8192, 512, 200, 4096).position_map(12_000)
    assert found["mapping_length"] == 4096
    assert [(region["name"], region["lower"]) for region in found["regions"]] == [
        (region.name, region.lower) for region in expected.regions
    ]
    assert [one["key"] for one in ast.literal_eval(methods[0].text)] == list(METHODS)
    _, figures = ast.literal_eval(asked[0].text)
    assert figures["new_tokens"] <= 3
    assert ast.literal_eval(needle[0].text)["length"] == 400


def test_what_cant_be_done_is_a_sentence(address):
    answer = asking(address, lambda client: client.call_tool("needle", {"length": 10**6}))
    assert answer.isError
    assert "The limit here is 6,000 tokens" in answer.content[0].text


def test_the_switch_is_checked():
    assert not Settings.from_environment({}).mcp
    assert Settings.from_environment({"MCP": "1"}).mcp
    with pytest.raises(InputError, match="MCP is 'yes'; it must be 1 or 0"):
        Settings.from_environment({"MCP": "yes"})
