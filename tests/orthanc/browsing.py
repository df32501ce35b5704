"""What a person does in a browser."""

from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import HttpCredentials, Locator, Page, Route, expect, sync_playwright

CHROMIUM = "/usr/bin/chromium"

ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run",
)  # fmt: skip

TIMEOUT_MS = 60_000
"""Longest wait for anything to appear; CI's machines may be slow."""


@contextmanager
def browser_page(login: tuple[str, str] | None = None) -> Iterator[Page]:
    """A page of a browser, which knows the user's name and password where given.

    At the end no script of the pages may have failed, nor broken their security policy.
    """
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        credentials = HttpCredentials(username=login[0], password=login[1]) if login else None
        page = browser.new_page(viewport={"width": 1400, "height": 1000}, http_credentials=credentials)
        page.set_default_timeout(TIMEOUT_MS)
        expect.set_options(timeout=TIMEOUT_MS)
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text) if "Security Policy" in message.text else None)
        try:
            yield page
        finally:
            browser.close()
        assert not wrong


LEFT_TO_RIGHT = """element => {
    const [drawn, texts] = [[], document.createTreeWalker(element, NodeFilter.SHOW_TEXT)];
    while (texts.nextNode()) {
        [...texts.currentNode.data].forEach((character, index) => {
            const place = document.createRange();
            place.setStart(texts.currentNode, index);
            place.setEnd(texts.currentNode, index + 1);
            drawn.push([place.getBoundingClientRect().left, character]);
        });
    }
    return drawn.sort(([a], [b]) => a - b).map(([, character]) => character).join('');
}"""


def as_drawn(line: Locator) -> str:
    """The characters of a line of text as they stand on the screen, from left to right."""
    drawn: str = line.evaluate(LEFT_TO_RIGHT)
    return drawn


def behind_prefix(page: Page, url: str) -> str:
    """Address under which a server is seen through a proxy that puts it under a prefix, as hospitals do."""
    proxied = "http://proxy.test/imaging/orthanc"

    def forward(route: Route) -> None:
        path = route.request.url.removeprefix(proxied)
        if path == route.request.url:
            route.abort()
        else:
            route.fulfill(response=route.fetch(url=url + path))

    page.route("http://proxy.test/**", forward)
    return proxied
