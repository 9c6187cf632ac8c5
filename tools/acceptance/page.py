"""The page in a headless Chromium: generate, progress, cancel, inpaint, repeat, an error, a phone.

    python page.py PROGRAM FOLDER      # screenshots go to FOLDER
"""

import os
import shutil
import sys

from playwright.sync_api import expect, sync_playwright
from serving import Server, program


def main():
    folder = sys.argv[2] if len(sys.argv) > 2 else "screenshots"
    os.makedirs(folder, exist_ok=True)
    browser_path = shutil.which("chromium") or shutil.which("chromium-browser")
    with Server(program()) as server, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        said = []
        page.on("console", lambda m: said.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda e: said.append(str(e)))
        page.goto(server.url)

        def shot(name):
            page.screenshot(path=os.path.join(folder, name + ".png"))

        def cards():
            return page.locator('#gallery li.card[data-state="done"]')

        page.fill("#prompt", "a large red circle on a white background")
        page.fill("#steps", "30")
        page.fill("#seed", "7")
        page.click("#generate")
        expect(cards()).to_have_count(1, timeout=60_000)
        shot("1-generated")
        print("generated: 1 picture in the gallery")

        page.fill("#steps", "1000")
        page.click("#generate")
        expect(page.locator("#progress")).to_be_visible(timeout=20_000)
        page.wait_for_timeout(1500)
        shot("2-progress")
        print("progress:", page.locator("#progress-text").inner_text())
        page.click("#cancel")
        expect(page.locator('#gallery li.card[data-state="cancelled"]')).to_have_count(1, timeout=20_000)
        print("cancelled")

        page.fill("#steps", "12")
        cards().first.locator('[data-action="more"]').click()
        cards().first.locator('[data-action="start"]').click()
        page.check("#mask-on")
        box = page.locator("#mask-canvas").bounding_box()
        page.mouse.move(box["x"] + box["width"] * 0.2, box["y"] + box["height"] * 0.2)
        page.mouse.down()
        for step in range(12):
            page.mouse.move(box["x"] + box["width"] * (0.2 + 0.05 * step),
                            box["y"] + box["height"] * (0.2 + 0.03 * (step % 5)))
        page.mouse.up()
        shot("3-mask")
        page.fill("#prompt", "a blue square on a white background")
        page.click("#generate")
        expect(cards()).to_have_count(2, timeout=60_000)
        shot("4-inpainted")
        print("inpainted with a painted mask")

        before = cards().count()
        cards().last.locator('[data-action="repeat"]').click()
        expect(cards()).to_have_count(before + 1, timeout=60_000)
        first = [page.evaluate(
            """async (src) => { const r = await fetch(src); const b = await r.arrayBuffer();
               const h = await crypto.subtle.digest('SHA-256', b);
               return [...new Uint8Array(h)].map(x => x.toString(16).padStart(2, '0')).join(''); }""",
            cards().nth(i).locator("img").first.get_attribute("src"),
        ) for i in (0, before)]
        print("repeated from the gallery, the same file:", first[0] == first[1])
        assert first[0] == first[1]

        page.fill("#steps", "100000")
        page.click("#generate")
        expect(page.locator("#error")).to_be_visible(timeout=10_000)
        print("an error:", page.locator("#error").inner_text().strip())
        shot("5-error")

        page.set_viewport_size({"width": 390, "height": 844})
        page.emulate_media(color_scheme="dark")
        shot("6-phone-dark")
        wide = page.evaluate("document.documentElement.scrollWidth")
        print("on a phone the page is", wide, "pixels wide of 390")
        assert wide <= 390
        unexpected = [text for text in said if "400" not in text]
        print("errors of the page:", unexpected)
        assert not unexpected
        browser.close()


main()
