// What the page says when something is the matter with the server, in Debian's Chromium against
// tests/mock-server.js: `npm run build && npm run browser`. What it does when all is well is tried against
// the real server (tests/product.js). Exits 0 with a message if there is no Chromium.
import { existsSync } from 'node:fs';
import { chromium } from 'playwright-core';
import { startMock } from './mock-server.js';

const candidates = [process.env.CHROMIUM, '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];
const executablePath = candidates.find((path) => path !== undefined && existsSync(path));
if (executablePath === undefined) {
  console.log('skipped: there is no Chromium');
  process.exit(0);
}
const mock = await startMock();
const browser = await chromium.launch({
  executablePath,
  args: ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
});
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
async function open(fragment = {}) {
  const page = await (await browser.newContext({ viewport: { width: 1200, height: 800 } })).newPage();
  page.setDefaultTimeout(30_000);
  page.on('pageerror', (error) => check(false, `error in the page: ${error.message}`));
  page.on('console', (message) => {
    // Chromium itself tells of answers that are errors.
    const expected = /Failed to load resource/.test(message.text());
    if (message.type() === 'error' && !expected) check(false, `console: ${message.text()}`);
  });
  await page.goto(`${mock.origin}/#${new URLSearchParams(fragment).toString()}`);
  return page;
}
const ready = (page) => page.waitForSelector('canvas.flamegraph-canvas[data-boxes]');
const says = (page, role, text) => page.waitForSelector(`[role=${role}]:has-text("${text}")`);
const askedSince = (count, part) => mock.asked.slice(count).filter((path) => path.includes(part));

try {
  // ---- a server that has just started ---------------------------------------------------------------
  mock.to('empty');
  const page = await open();
  await says(page, 'status', 'No samples yet');
  mock.to('fine');
  await ready(page);
  check(true, 'the first samples come by themselves');

  // ---- it goes away, and comes back -------------------------------------------------------------------
  mock.to('gone');
  await page.waitForSelector('.banner:has-text("does not answer")');
  check(await page.locator('canvas.flamegraph-canvas').isVisible(), 'what was there stays');
  mock.to('fine');
  await page.waitForSelector('.banner', { state: 'detached' });
  mock.to('busy');
  await page.waitForSelector('.banner:has-text("too many requests")');
  mock.to('fine');
  await page.waitForSelector('.banner', { state: 'detached' });

  // ---- live: asks again, keeps what is zoomed, and not while nobody looks ----------------------------------
  await page.locator('.flamegraph-scroller').focus();
  for (const key of ['ArrowDown', 'ArrowDown', 'Enter']) await page.keyboard.press(key);
  await page.waitForFunction(() => window.location.hash.includes('zoom='));
  const zoomed = page.url();
  const before = mock.asked.length;
  await page.waitForTimeout(6_000);
  check(askedSince(before, 'format=columnar').length >= 1, 'the graph is asked for again');
  check(askedSince(before, 'services').length === 0, 'the services are not, while nobody looks at them');
  check(page.url() === zoomed, 'what is zoomed stays zoomed');
  await page.evaluate(() => {
    Object.defineProperty(document, 'hidden', { configurable: true, get: () => true });
  });
  const hidden = mock.asked.length;
  await page.waitForTimeout(6_000);
  check(mock.asked.length === hidden, 'a hidden page asks nothing');
  await page.evaluate(() => {
    Object.defineProperty(document, 'hidden', { configurable: true, get: () => false });
    document.dispatchEvent(new Event('visibilitychange'));
  });
  await page.waitForTimeout(500);
  check(mock.asked.length > hidden, 'seen again, it asks at once');
  await page.keyboard.press('l');
  await page.waitForFunction(() => window.location.hash.includes('live=off'));
  const still = mock.asked.length;
  await page.waitForTimeout(6_000);
  check(mock.asked.length === still, 'standing still, it asks nothing');
  await page.keyboard.press('r');
  await page.waitForTimeout(500);
  check(askedSince(still, 'format=columnar').length === 1, 'r asks once');

  // ---- filters and times go to the server as they stand in the URL ---------------------------------------------
  await page.locator('.filters .face').click();
  await page.keyboard.type('4711');
  await page.keyboard.press('Enter');
  await page.waitForSelector('.chip');
  check(mock.asked.at(-1).includes('pid=4711'), 'a pid narrows the question');
  await page.locator('.chip').click();
  await page.waitForSelector('.chip', { state: 'detached' });
  const shift = mock.asked.length;
  await page.locator('.flamegraph-scroller').focus();
  await page.keyboard.press('[');
  await page.waitForFunction(() => /from=\d{10}&to=\d{10}/.test(window.location.hash));
  await page.waitForTimeout(300);
  check(askedSince(shift, 'format=columnar').some((path) => /from=\d{10}&to=\d{10}/.test(path)), '[ looks back');
  await page.keyboard.press('l');
  await page.waitForFunction(() => !/from=/.test(window.location.hash));
  await page.context().close();

  // ---- requests: the picture, a mark, filters, by keyboard ---------------------------------------------------
  const fields = async (page) => new URLSearchParams((await page.evaluate(() => window.location.hash)).slice(1));
  const urlHas = (page, key, value) =>
    page.waitForFunction(([name, wanted]) => new URLSearchParams(window.location.hash.slice(1)).get(name) === wanted, [key, value]);
  const requests = await open({ live: 'off' });
  await ready(requests);
  await requests.keyboard.press('q');
  await requests.waitForSelector('[data-dots]');
  check((await requests.locator('canvas[data-dots]').getAttribute('data-dots')) === '1200', 'every request is a dot');
  check(/1,200 requests[^]*median/.test(await requests.locator('.summary').innerText()), 'and is counted');
  const box = await requests.locator('.scatter').boundingBox();
  await requests.mouse.move(box.x + 200, box.y + 60);
  await requests.mouse.down();
  await requests.mouse.move(box.x + 420, box.y + 330, { steps: 4 });
  await requests.mouse.up();
  await requests.waitForFunction(() => window.location.hash.includes('marked='));
  await requests.waitForSelector('.summary:has-text("Marked")');
  const few = Number((await requests.locator('.summary strong').innerText()).replace(/\D/g, ''));
  check(few > 0 && few < 1200, `a mark leaves fewer: ${few}`);
  await requests.locator('.scatter').focus();
  await requests.keyboard.press('Escape');
  await urlHas(requests, 'marked', null);
  await requests.locator('.filters .face').click();
  await requests.keyboard.type('/checkout');
  await requests.getByLabel('At least so long').fill('200ms');
  await requests.keyboard.press('Enter');
  await urlHas(requests, 'route', '/checkout');
  check(mock.asked.at(-1).includes('min_duration=200ms'), 'a filter narrows the question');
  await requests.waitForFunction(() => document.querySelectorAll('.requests-list tbody tr').length < 100);
  const names = new Set(await requests.locator('.requests-list .function button').allInnerTexts());
  check(names.size === 1 && names.has('POST /checkout'), `only what is asked for is listed: ${[...names].join()}`);

  // ---- a trace, its spans and what one of them ran -------------------------------------------------------------
  await requests.locator('.scatter').focus();
  await requests.keyboard.press('ArrowRight');
  await requests.waitForSelector('#scatter-current');
  check((await requests.locator('#scatter-current').innerText()).startsWith('POST /checkout, '), 'a dot is read out');
  await requests.keyboard.press('Enter');
  await requests.waitForSelector('.span-row');
  await requests.waitForSelector('.span-stage canvas[data-boxes]');
  check(/only 23 samples/.test(await requests.locator('.span-stage .summary').innerText()), 'few samples are said to be few');
  check((await requests.locator('[role=treeitem][aria-level="4"]').count()) > 0, 'spans are nested');
  await requests.locator('.waterfall').focus();
  for (let presses = 0; presses < 3; presses++) await requests.keyboard.press('ArrowDown');
  await requests.waitForFunction(() => document.querySelector('.span-panel h2')?.textContent === 'stock.Inventory/Reserve');
  check(/option of its first packet/.test(await requests.locator('.span-panel').innerText()), 'how a parent is known is said');
  await requests.keyboard.press('ArrowLeft');
  const rows = (count) => requests.waitForFunction((wanted) => document.querySelectorAll('.span-row').length === wanted, count);
  await rows(4);
  check(true, 'what is below a span can be folded');
  await requests.keyboard.press('ArrowRight');
  await rows(5);
  await requests.keyboard.press('End');
  await requests.waitForSelector('[role=status]:has-text("Nothing sampled in this span")');
  const chosen = (await requests.locator('.span-row[aria-selected=true]').getAttribute('id')).slice('span-'.length);
  await urlHas(requests, 'span', chosen);
  await requests.reload();
  await requests.waitForSelector('[role=status]:has-text("Nothing sampled in this span")');
  check((await requests.locator(`#span-${chosen}[aria-selected=true]`).count()) === 1, 'loading again keeps the span');
  await requests.locator('.waterfall').focus();
  await requests.keyboard.press('Escape');
  await requests.waitForSelector('[data-dots]');

  // ---- what still runs, slow against typical, and from a frame to requests --------------------------------------------
  await requests.goto(`${mock.origin}/#page=requests&live=off`);
  await requests.waitForSelector('[data-dots="1200"]');
  await requests.locator('.requests-list .function button').first().click();
  await requests.waitForSelector('.span-bar.open');
  check(/still running/.test(await requests.locator('.trace-summary').innerText()), 'a request that has not ended is said to run');
  check(/status\s*unknown: no response yet/.test(await requests.locator('.span-panel').innerText()), 'what is unknown is said to be');
  await requests.goto(`${mock.origin}/#page=requests&live=off&service=shop&route=%2Fcheckout`);
  await requests.getByRole('button', { name: 'Slow against typical' }).click();
  await ready(requests);
  await requests.keyboard.press('2');
  await requests.waitForSelector('td.grew');
  check(/compress_receipt|receipt/.test(await requests.locator('table.top tbody tr').first().innerText()), 'what slow requests do besides comes first');
  await requests.goto(`${mock.origin}/#live=off`);
  await ready(requests);
  await requests.locator('.flamegraph-scroller').focus();
  for (const key of ['ArrowDown', 'ArrowDown']) await requests.keyboard.press(key);
  await requests.getByRole('button', { name: 'Requests that ran it' }).click();
  await requests.locator('.ran .frames button').first().click();
  await requests.waitForSelector('.span-row');
  await requests.waitForFunction(() => window.location.hash.includes('page=requests'));
  check((await fields(requests)).get('page') === 'requests', 'a frame leads to a request that ran it');
  await requests.context().close();

  // ---- what cannot be shown, and the way out ------------------------------------------------------------------------
  for (const [mode, role, text, fragment] of [
    ['idle', 'status', 'checkout was idle', { service: 'checkout' }],
    ['missing', 'alert', 'no service nobody in this range', { service: 'nobody' }],
    ['unauthorized', 'alert', 'wants a token', {}],
    ['gone', 'alert', 'does not answer', {}],
    ['busy', 'alert', 'too many requests', {}],
  ]) {
    mock.to(mode);
    const failed = await open(fragment);
    await says(failed, role, text);
    check(await failed.locator('.bar .time').isVisible(), `${mode}: the bar stays`);
    mock.to('fine');
    if (mode === 'gone' || mode === 'busy') await ready(failed);
    if (mode === 'missing') {
      await failed.getByRole('button', { name: 'Whole host' }).click();
      await ready(failed);
    }
    await failed.context().close();
  }
  const foreign = await open({ source: 'http://example.com/x.columnar' });
  await says(foreign, 'alert', 'another server');
  check(true, 'graphs of other servers are refused');
  const nonsense = await open({ view: 'evil', from: 'evil', mode: '<b>', live: '1', compare: '2', brush: '9-1' });
  await ready(nonsense);
  check(true, 'a URL of nonsense shows the host');
} catch (error) {
  failures++;
  console.error(`failed: ${error.stack}`);
} finally {
  await browser.close();
  mock.close();
}
console.log(`${passes} checks passed, ${failures} failed`);
process.exit(failures === 0 && passes > 0 ? 0 : 1);
