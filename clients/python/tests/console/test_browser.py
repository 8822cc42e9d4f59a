"""The console in headless Chromium: every page, live, by keyboard, at two widths, with hostile texts; no error on the
page's console and no request to another host. `SHOTS=1` draws docs/images/ anew."""

from __future__ import annotations

import io
import os
import threading

import pytest
import redis
from conftest import ROOT
from consoles import CHROMIUM, consoles
from pairs import load
from playwright.sync_api import Page, expect, sync_playwright
from seed import fill, look_up, write_live

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PAGES = {
    "overview": "Overview", "cache": "Cache", "try": "Try it", "documents": "Documents", "sessions": "Sessions", "kv": "KV cache",
}  # fmt: skip
HOSTILE = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">\x1b[31m\u202eevil"
IMAGES = ROOT / "docs/images"


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playing:
        made = playing.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield made
        made.close()


@pytest.fixture(scope="module")
def seeded(new_fleet):
    """A server with the demo's data, and a console on it."""
    server = new_fleet().launch()
    with redis.Redis(port=server.port) as client:
        fill(client, load())
    with consoles(server) as start:
        yield server, start("--allow-write")


@pytest.fixture
def opened(browser):
    """Opens pages; at the end none may have complained or asked another host."""
    contexts, wrong = [], []

    def go(console, path: str = "overview", width: int = 1600, scheme: str = "light") -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": 1000 if width > 500 else 740}, color_scheme=scheme
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
        page.on(
            "request",
            lambda asked: wrong.append(asked.url) if not asked.url.startswith((console.base, "data:")) else None,
        )
        page.goto(f"{console.base}/#/{path}")
        page.wait_for_selector(f"main[data-page={path.partition('/')[0]}]")
        return page

    yield go
    for context in contexts:
        context.close()
    assert wrong == []


def overflow(page: Page) -> int:
    return page.evaluate("document.documentElement.scrollWidth - innerWidth")


@pytest.mark.parametrize("width", [360, 1600])
@pytest.mark.parametrize("path", PAGES)
def test_every_page_shows_what_there_is(seeded, opened, path, width):
    page = opened(seeded[1], path, width)
    expect(page.locator("h1")).to_have_text(PAGES[path])
    expect(page.locator("nav [aria-current]")).to_have_text(PAGES[path])
    expect(page.locator("main .problem")).to_have_count(0)
    assert overflow(page) <= 0
    said = {
        "overview": ".card:has-text('handbook')", "cache": ".near", "try": "textarea[name=prompt]", "documents": "input[name=words]",
        "sessions": ".message.user", "kv": ".tree rect.pinned",
    }  # fmt: skip
    page.wait_for_selector(said[path])


@pytest.mark.parametrize("path", PAGES)
def test_an_empty_server_is_told_what_to_do(server, console, opened, path):
    page = opened(console(), path, 360)
    expect(page.locator(".empty .mono")).to_contain_text("redis-cli")
    assert overflow(page) <= 0


def test_numbers_move_while_one_looks(seeded, opened):
    import random

    server, console = seeded
    page = opened(console)
    before = page.locator(".stat:has-text('Hit ratio') small").inner_text()
    with redis.Redis(port=server.port) as client:
        for pair in load()[:40]:
            look_up(client, pair, random.Random(1))
    expect(page.locator(".stat:has-text('Hit ratio') small")).not_to_have_text(before)
    page.wait_for_selector("svg .line", state="attached")
    expect(page.locator("#state")).to_have_class("state live")


def test_a_near_miss_is_judged_and_gone(seeded, opened):
    page = opened(seeded[1], "cache/faq")
    row = page.locator(".near").first
    number = row.get_attribute("data-number")
    row.get_by_text("Other answer").click()
    expect(page.locator(f".near[data-number='{number}']")).to_have_count(0)
    expect(page.locator(".stat:has-text('Opinions') dd")).to_contain_text("0 / 1")
    row = page.locator(".near").first
    number, entries = row.get_attribute("data-number"), page.locator(".stat:has-text('Entries') dd").inner_text()
    row.get_by_text("Remove the answer").click()
    expect(page.locator(f".near[data-number='{number}']")).to_have_count(0)
    expect(page.locator(".stat:has-text('Entries') dd")).not_to_have_text(entries)


def test_another_threshold_is_tried(seeded, opened):
    page = opened(seeded[1], "cache/faq")
    slide = page.locator("input[type=range]")
    slide.focus()
    for _ in range(10):
        slide.press("ArrowLeft")
    expect(page.locator(".note:has-text('A threshold of 0.80 would serve')")).to_contain_text("more than now")
    expect(page.locator("svg .try")).to_have_count(1)


def test_a_question_is_tried(seeded, opened):
    trap = next(pair for pair in load() if pair.id == "number_date-007")
    page = opened(seeded[1], "try/faq")
    page.fill("textarea[name=prompt]", trap.second)
    page.fill("textarea[name=vector]", ", ".join(map(str, numbers(trap.second_vector))))
    page.press("textarea[name=prompt]", "Enter")
    expect(page.locator("#outcome .verdict")).to_contain_text("Miss")
    expect(page.locator("#outcome")).to_contain_text("Guard: number")
    expect(page.locator("#outcome")).to_contain_text("paracetamol")
    page.fill("textarea[name=prompt]", load()[1].first)
    page.fill("textarea[name=vector]", "")
    page.get_by_text("Look up").click()
    expect(page.locator("#outcome .verdict")).to_contain_text("word for word")
    page.fill("textarea[name=vector]", "no numbers")
    page.get_by_text("Look up").click()
    expect(page.locator(".problem")).to_contain_text("numbers with commas")


def numbers(vector: bytes) -> list[float]:
    import struct

    return [round(value, 5) for value in struct.unpack(f"<{len(vector) // 2}e", vector)]


def search(page: Page) -> None:
    page.fill("input[name=words]", "book hotel appoint*")
    page.fill("input[name=filter]", ".year >= 2022")
    page.fill("input[name=tokens]", "120")
    page.get_by_role("button", name="Search").click()
    page.wait_for_selector("#left-out td")


def test_documents_are_found_and_what_is_left_out_is_said(seeded, opened):
    page = opened(seeded[1], "documents/handbook")
    search(page)
    expect(page.locator("#left-out")).to_contain_text("FILTER")
    expect(page.locator("article").first).to_contain_text("tokens")


def test_a_message_arrives_while_it_is_written(seeded, opened):
    server, console = seeded
    ended = threading.Event()
    with redis.Redis(port=server.port) as client:
        writer = threading.Thread(
            target=write_live, args=(client, "chat:now", ["one ", "two ", "three "] * 400, 0.1, ended)
        )
        writer.start()
        try:
            page = opened(console, "sessions/chat:now")
            live = page.locator("#live")
            expect(live).to_contain_text("one two three")
            seen = live.text_content()
            expect(live).not_to_have_text(seen)
        finally:
            ended.set()
            writer.join()
        expect(page.locator(".message:has(#live)")).to_contain_text("done")


def test_a_window_is_shown_as_a_model_gets_it(seeded, opened):
    page = opened(seeded[1], "sessions/chat:1")
    expect(page.locator(".message")).to_have_count(9)
    page.fill("input[name=tokens]", "40")
    page.get_by_text("Show window").click()
    expect(page.locator("main")).to_contain_text("older ones are left out")
    assert page.locator(".message").count() < 9


def test_the_tree_tells_what_goes_next(seeded, opened):
    page = opened(seeded[1], "kv")
    page.wait_for_selector(".tree rect.next")
    drawn = len(seeded[1].get("namespace", name="vllm@llama-3.1-8b")["tree"])
    expect(page.locator(".tree rect")).to_have_count(drawn)
    assert page.locator(".tree rect.leased").count() == 1
    page.locator("#eviction tbody tr").first.click()
    expect(page.locator("dialog[open]")).to_contain_text("digest")
    page.keyboard.press("Escape")
    expect(page.locator("dialog[open]")).to_have_count(0)


def test_everything_by_keyboard(seeded, opened):
    page = opened(seeded[1])
    for key, path in zip("123456", PAGES, strict=True):
        page.keyboard.press(key)
        page.wait_for_selector(f"main[data-page={path}]")
    page.keyboard.press("2")
    page.wait_for_selector(".near")
    page.keyboard.press("j")
    first = page.evaluate("document.activeElement.outerHTML")
    page.keyboard.press("j")
    assert page.evaluate("document.activeElement.outerHTML") != first
    page.keyboard.press("k")
    theme = page.evaluate("document.documentElement.dataset.theme")
    page.keyboard.press("t")
    assert page.evaluate("document.documentElement.dataset.theme") != theme
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#help")).not_to_be_visible()
    page.keyboard.press("3")
    page.wait_for_selector("main[data-page=try]")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.name") == "prompt"
    page.keyboard.type("1?t")
    assert page.input_value("textarea[name=prompt]") == "1?t"
    page.keyboard.press("Escape")
    page.keyboard.press("Tab")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") != theme


def test_light_and_dark_follow_the_system(seeded, opened):
    for scheme in ("light", "dark"):
        assert opened(seeded[1], scheme=scheme).evaluate("document.documentElement.dataset.theme") == scheme


@pytest.mark.parametrize("path", ["overview", "cache", "try", "documents", "sessions", "kv"])
def test_hostile_texts_are_texts(server, console, r, opened, path):
    v = ("VALUES", 2, 1, 0.5)
    r.execute_command("LLMCACHE.CREATE", HOSTILE, "NEARMISSES", 5, "MAXERROR", "0.05", "COLD", "STATIC")
    body = HOSTILE.encode() + b"x" * (16 << 20)
    r.execute_command(
        "LLMCACHE.SETSEM", HOSTILE, "PROMPT", HOSTILE, "RESPONSE", body, *v, "TAGS", 1, HOSTILE, "SCOPE", HOSTILE
    )
    r.execute_command("LLMCACHE.SETSEM", HOSTILE, "PROMPT", HOSTILE, "RESPONSE", body, *v)
    r.execute_command("LLMCACHE.GETSEM", HOSTILE, "PROMPT", HOSTILE + " 7", *v)
    r.execute_command("RAG.ADD", HOSTILE + "d", HOSTILE, *v, "TEXT", body, "TAGS", 1, HOSTILE)
    r.execute_command("SESSION.APPEND", HOSTILE + "s", "MSG", "user", body)
    r.execute_command("KVCHUNK.CREATE", HOSTILE + "k", "MODEL", HOSTILE)
    r.execute_command("KVCHUNK.PUT", HOSTILE + "k", "HASH", "a", "PAYLOAD", 1, "x")
    page = opened(console("--allow-write"), path, 360)
    if path == "try":
        page.fill("textarea[name=prompt]", HOSTILE)
        page.get_by_text("Look up").click()
        expect(page.locator("#outcome")).to_contain_text("cut; 16 MiB in all")
    if path == "documents":
        page.fill("textarea[name=vector]", "1, 0.5")
        page.get_by_role("button", name="Search").click()
        expect(page.locator("article")).to_contain_text("cut; 16 MiB in all")
    if path == "sessions":
        expect(page.locator(".message")).to_contain_text("cut; 16 MiB in all")
    if path == "cache":
        page.locator("tbody tr[tabindex]").first.click()
        expect(page.locator("dialog[open]")).to_contain_text("cut; 16 MiB in all")
    expect(page.locator("main")).to_contain_text("<script>document.title")
    assert page.locator("main script, main img").count() == 0
    assert "owned" not in page.title()
    assert "\x1b" not in page.content()
    assert "\u202e" not in page.content()
    assert overflow(page) <= 0


SHOTS = [(path, width, "light") for width in (1600, 360) for path in PAGES] + [("overview", 1600, "dark")]


def draw(seeded, opened, path, width, scheme):
    from PIL import Image

    server, console = seeded
    ended = threading.Event()
    with redis.Redis(port=server.port) as client:
        from seed import go_on

        going = threading.Thread(target=go_on, args=(client, load(), ended))
        going.start()
        try:
            page = opened(console, {"sessions": "sessions/chat:live"}.get(path, path), width, scheme)
            page.wait_for_timeout(25_000 if path == "overview" else 1_500)
            if path == "documents":
                search(page)
            if path == "try":
                trap = next(pair for pair in load() if pair.id == "number_date-007")
                page.fill("textarea[name=prompt]", trap.second)
                page.fill("textarea[name=vector]", ", ".join(map(str, numbers(trap.second_vector))))
                page.get_by_text("Look up").click()
                page.wait_for_selector("#outcome")
            page.mouse.move(0, 0)
            shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
        finally:
            ended.set()
            going.join()
    IMAGES.mkdir(exist_ok=True)
    name = f"{path}-{width}{'-dark' if scheme == 'dark' else ''}.png"
    shot.quantize(160, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(IMAGES / name, optimize=True)


if os.environ.get("SHOTS"):
    test_draw = pytest.mark.parametrize(("path", "width", "scheme"), SHOTS)(draw)
