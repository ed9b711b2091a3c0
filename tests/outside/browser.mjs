// Opens a page in headless Chromium, does what it is told, and prints what happened as JSON.
//
//   node browser.mjs CHROMIUM URL STEPS.json
//
// STEPS.json is a list of lists: [what, ...arguments]. The answer has `errors` (of the console and of scripts), `requests` (all
// addresses that were asked for), and `values` (one for each step that gives one).

import { readFileSync, writeFileSync } from "node:fs";
import { chromium } from "playwright-core";

const [executablePath, url, stepsFile] = process.argv.slice(2);
const args = [
  "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
  "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
];
const browser = await chromium.launch({ executablePath, args, chromiumSandbox: false });
const answer = { errors: [], requests: [], values: [] };

async function settled(page, box) {
  // Software WebGL is slow: done when two screenshots half a second apart are the same.
  let before = null;
  for (let i = 0; i < 60; i++) {
    const screenshot = (await page.screenshot({ clip: box })).toString("base64");
    if (screenshot === before) return;
    before = screenshot;
    await page.waitForTimeout(500);
  }
  throw new Error("the page keeps changing");
}

// The first input in the row of a label.
const inputOf = (page, label) =>
  page.locator(`xpath=(//*[starts-with(normalize-space(text()), "${label}")]/ancestor::*[.//input][1]//input[not(@type="hidden")])[1]`);

const steps = {
  wait: (page, milliseconds) => page.waitForTimeout(milliseconds),
  see: (page, text) => page.getByText(text).first().waitFor({ timeout: 30000 }),
  settle: async (page) => settled(page, { x: 0, y: 0, ...page.viewportSize() }),
  shot: async (page, path) => { await page.screenshot({ path }); },
  click: (page, name) => page.getByText(name, { exact: true }).first().click({ timeout: 10000 }),
  fill: async (page, label, value) => {
    const input = inputOf(page, label);
    await input.fill(value);
    await input.press("Enter");
  },
  tick: (page, label) => inputOf(page, label).click(),
  set: async (page, selector, value) => {
    await page.locator(selector).first().evaluate((input, text) => {
      input.value = text;
      input.dispatchEvent(new Event("input", { bubbles: true }));
    }, value);
  },
  size: (page, width, height) => page.setViewportSize({ width, height }),
  touch: (page, path) => writeFileSync(path, ""),
  eval: async (page, code) => { answer.values.push(await page.evaluate(code)); },
  download: async (page, name, path) => {
    const waiting = page.waitForEvent("download", { timeout: 60000 });
    await page.getByText(name, { exact: true }).first().click();
    await (await waiting).saveAs(path);
  },
};

try {
  const page = await browser.newPage({ viewport: { width: 900, height: 600 }, acceptDownloads: true });
  page.on("console", (message) => { if (message.type() === "error") answer.errors.push(message.text()); });
  page.on("pageerror", (error) => answer.errors.push(String(error)));
  page.on("request", (request) => answer.requests.push(request.url().slice(0, 200)));
  page.on("websocket", (socket) => answer.requests.push(socket.url()));
  await page.goto(url);
  for (const [what, ...rest] of JSON.parse(readFileSync(stepsFile, "utf8"))) {
    try {
      await steps[what](page, ...rest);
    } catch (error) {
      answer.failed = `${what} ${rest}: ${String(error).split("\n")[0]}`;
      break;
    }
  }
} finally {
  await browser.close();
}
console.log(JSON.stringify(answer));
