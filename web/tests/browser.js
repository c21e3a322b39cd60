// Drives the built page in Debian's Chromium: `npm run build && npm run browser`, or `npm run browser --
// A.columnar B.columnar` for graphs of your own.
// Serves dist/ and the files on a port of its own, walks through what a visitor does, and leaves pictures
// in screenshots/. Exits 0 with a message if there is no Chromium.
import { createServer } from 'node:http';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { extname, join, normalize } from 'node:path';
import { chromium } from 'playwright-core';

const EXECUTABLE = process.env.CHROMIUM ?? '/usr/bin/chromium';
const TYPES = { '.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml' };
const POLICY = "default-src 'self'; style-src 'self'; script-src 'self'; img-src 'self' data:; frame-ancestors 'none'";

if (!existsSync(EXECUTABLE)) {
  console.log(`skipped: no Chromium at ${EXECUTABLE}`);
  process.exit(0);
}
const [file = 'testdata/everything.columnar', base = 'testdata/recursive.columnar'] = process.argv.slice(2);
mkdirSync('screenshots', { recursive: true });

const server = createServer((request, response) => {
  const path = new URL(request.url, 'http://localhost').pathname;
  const graphs = { '/a.columnar': file, '/b.columnar': base };
  const name = graphs[path] ?? join('dist', normalize(path === '/' ? '/index.html' : path));
  if (name === undefined || !existsSync(name)) {
    response.writeHead(404, { 'Content-Type': 'application/json' });
    response.end('{"error":"not_found","message":"no such profile"}');
    return;
  }
  response.writeHead(200, {
    'Content-Type': TYPES[extname(name)] ?? 'application/octet-stream',
    'Content-Security-Policy': POLICY,
  });
  response.end(readFileSync(name));
});
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const origin = `http://127.0.0.1:${server.address().port}`;

const browser = await chromium.launch({ executablePath: EXECUTABLE, args: ['--no-sandbox'] });
let failures = 0;
let passes = 0;
function check(holds, what) {
  if (holds) {
    passes++;
  } else {
    failures++;
    console.error(`failed: ${what}`);
  }
}

async function open(fragment, { dark = false, width = 1440, height = 860, scale = 1 } = {}) {
  const context = await browser.newContext({
    viewport: { width, height },
    deviceScaleFactor: scale,
    colorScheme: dark ? 'dark' : 'light',
  });
  const page = await context.newPage();
  page.on('pageerror', (error) => check(false, `error in the page: ${error.message}`));
  page.on('console', (message) => {
    if (message.type() === 'error' && !message.text().includes('404')) check(false, `console: ${message.text()}`);
  });
  await page.goto(`${origin}/#${new URLSearchParams(fragment).toString()}`);
  return page;
}
const ready = (page) => page.waitForSelector('canvas[data-boxes]');
const picture = (page, name) => page.screenshot({ path: `screenshots/${name}.png` });
const selectedLabel = (page) => page.locator('[role=treeitem][aria-selected=true]').getAttribute('aria-label');
const fields = async (page) => new URLSearchParams((await page.evaluate(() => window.location.hash)).slice(1));

try {
  const page = await open({ source: 'a.columnar' });
  await ready(page);
  const paint = await page.locator('canvas').evaluate((canvas) => ({ ...canvas.dataset }));
  console.log(`first paint: ${paint.boxes} boxes in ${paint.paintMs} ms`);
  check(Number(paint.boxes) > 5, 'boxes are drawn');
  await picture(page, '1-graph');

  // By keyboard alone: down three times, zoom, out, flip.
  await page.locator('.flamegraph-scroller').focus();
  check((await selectedLabel(page)).startsWith('all'), 'the root is selected first');
  for (let step = 0; step < 3; step++) await page.keyboard.press('ArrowDown');
  const walked = await selectedLabel(page);
  check(!walked.startsWith('all'), 'arrows move the focus');
  check((await page.locator('[role=treeitem][aria-selected=true]').getAttribute('aria-level')) === '4', 'three down is level 4');
  await page.keyboard.press('Enter');
  check((await fields(page)).get('zoom')?.length === 16, 'Enter zooms, and the URL says so');
  await page.mouse.move(300, 125);
  await page.waitForSelector('.tooltip');
  await picture(page, '2-zoomed');
  const address = page.url();
  await page.reload();
  await ready(page);
  check(page.url() === address, 'reloading keeps the URL');
  check((await selectedLabel(page)).startsWith(walked.split(',')[0]), 'reloading keeps what is selected');
  await page.locator('.flamegraph-scroller').focus();
  await page.keyboard.press('0');
  check((await fields(page)).get('zoom') === null, '0 shows everything');
  await page.keyboard.press('f');
  check((await fields(page)).get('direction') === 'flame', 'f flips');
  await picture(page, '3-flame');
  await page.goBack();
  check((await fields(page)).get('direction') === null, 'back undoes a step');

  await page.locator('.flamegraph-scroller').focus();
  await page.keyboard.press('Home');
  await page.keyboard.press('/');
  await page.keyboard.type('/alloc|free|mem/');
  await page.waitForFunction(() => document.querySelector('.search output')?.textContent !== '');
  const found = await page.locator('.search output').textContent();
  console.log(`search: ${found}`);
  await page.keyboard.press('Enter');
  await page.keyboard.press('Enter');
  await picture(page, '4-search');
  if (!found.includes('no hit')) {
    check((await page.locator('.search output').textContent()).includes('· 2 of '), 'Enter goes to the next hit');
    const width = await page.locator('canvas').evaluate((canvas) => canvas.clientWidth);
    check(width > 300, 'the graph is still there');
  }
  await page.keyboard.press('Escape');
  await page.keyboard.press('Escape');

  await page.keyboard.press('2');
  await page.waitForSelector('table.top tbody tr');
  await picture(page, '5-table');
  check((await page.locator('table.top tbody tr').count()) > 5, 'the table has rows');
  await page.locator('table.top .function button').nth(2).click();
  await page.waitForSelector('.halves canvas[data-boxes]');
  check((await page.locator('.halves canvas').count()) === 2, 'a sandwich has two halves');
  await picture(page, '6-sandwich');
  await page.locator('.brand').focus();
  await page.keyboard.press('?');
  await page.waitForSelector('dialog[open]');
  await picture(page, '7-help');
  await page.keyboard.press('Escape');
  await page.waitForSelector('dialog', { state: 'detached' });
  await page.context().close();

  const dark = await open({ source: 'a.columnar' }, { dark: true, scale: 2 });
  await ready(dark);
  await picture(dark, '8-dark');
  await dark.context().close();

  const phone = await open({ source: 'a.columnar' }, { width: 390, height: 800, scale: 2 });
  await ready(phone);
  await picture(phone, '9-phone');
  const overflow = await phone.evaluate(() => document.documentElement.scrollWidth > window.innerWidth);
  check(!overflow, 'nothing is wider than a phone');
  await phone.context().close();

  const both = await open({ source: 'b.columnar', base: 'a.columnar' });
  await ready(both);
  await both.mouse.move(300, 125);
  await picture(both, '10-diff');
  await both.keyboard.press('2');
  await both.waitForSelector('table.top tbody tr');
  check((await both.locator('td.grew, td.shrank').count()) > 0, 'the table of a comparison has changes');
  await picture(both, '11-diff-table');
  await both.context().close();

  const missing = await open({ source: 'nothing.columnar' });
  await missing.waitForSelector('[role=alert]');
  check((await missing.locator('[role=alert]').textContent()).includes('no such profile'), "the server's sentence is shown");
  await picture(missing, '12-missing');
  const foreign = await open({ source: 'http://example.com/x.columnar' });
  await foreign.waitForSelector('[role=alert]');
  check((await foreign.locator('[role=alert]').textContent()).includes('another server'), 'other servers are refused');
} finally {
  await browser.close();
  server.close();
}
console.log(`${passes} passed, ${failures} failed`);
process.exit(failures === 0 ? 0 : 1);
