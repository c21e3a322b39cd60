// Opens the page of a server that has just been started, and ends when it shows a graph that is not empty:
// `node tests/first-graph.js URL`. `tests/serve_in_a_browser.rs` takes the time.
import { existsSync } from 'node:fs';
import { chromium } from 'playwright-core';

const candidates = [process.env.CHROMIUM, '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];
const executablePath = candidates.find((path) => path !== undefined && existsSync(path));
if (executablePath === undefined) throw new Error('there is no Chromium');
const browser = await chromium.launch({
  executablePath,
  args: ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
});
try {
  const page = await browser.newPage();
  const begun = performance.now();
  await page.goto(process.argv[2]);
  // More than the root is drawn, and what it stands for is said.
  const canvas = await page.waitForSelector('.body:not(.stale) canvas.flamegraph-canvas[data-boxes]', { timeout: 60_000 });
  await page.waitForFunction((drawn) => Number(drawn.dataset.boxes) > 3, canvas);
  const said = await page.locator('.summary strong').first().textContent();
  if (!/^[1-9].* CPU$/.test(said ?? '')) throw new Error(`the summary begins with ${said}`);
  console.log(`${said}, ${Math.round(performance.now() - begun)} ms after the page was asked for`);
} finally {
  await browser.close();
}
