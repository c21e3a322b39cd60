// Walks through the product as a visitor does, in Debian's Chromium: `node tests/product.js URL SERVICE
// OTHER FUNCTION FOLDER`. The server at URL profiles two busy services, and FUNCTION is where the first one
// burns its time. Screenshots and the downloaded profile are left in FOLDER. `tests/serve_in_a_browser.rs`
// starts all that.
import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

const [origin, service, other, burner, folder] = process.argv.slice(2);
const candidates = [process.env.CHROMIUM, '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];
const executablePath = candidates.find((path) => path !== undefined && existsSync(path));
if (executablePath === undefined) {
  console.log('skipped: there is no Chromium');
  process.exit(0);
}
mkdirSync(folder, { recursive: true });

const browser = await chromium.launch({
  executablePath,
  args: [
    '--no-sandbox',
    '--disable-gpu',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
  ],
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

async function open(fragment = '', { dark = false, width = 1440, height = 860, scale = 1 } = {}) {
  const context = await browser.newContext({
    viewport: { width, height },
    deviceScaleFactor: scale,
    colorScheme: dark ? 'dark' : 'light',
    acceptDownloads: true,
  });
  const page = await context.newPage();
  page.setDefaultTimeout(45_000);
  page.on('pageerror', (error) => check(false, `error in the page: ${error.message}`));
  page.on('console', (message) => {
    // A 404 of the server is part of what is tried, and Chromium says so.
    if (message.type() === 'error' && !message.text().includes('404')) check(false, `console: ${message.text()}`);
  });
  await page.goto(`${origin}/${fragment === '' ? '' : `#${new URLSearchParams(fragment).toString()}`}`);
  return page;
}
const ready = (page) => page.waitForSelector('.body:not(.stale) canvas.flamegraph-canvas[data-boxes]');
const picture = (page, name) => page.screenshot({ path: join(folder, `${name}.png`) });
const selected = (page) => page.locator('[role=treeitem][aria-selected=true]').getAttribute('aria-label');
const fields = async (page) => new URLSearchParams((await page.evaluate(() => window.location.hash)).slice(1));
const urlHas = (page, key, value) =>
  page.waitForFunction(
    ([name, wanted]) => new URLSearchParams(window.location.hash.slice(1)).get(name) === wanted,
    [key, value],
  );
const json = async (path) => (await fetch(`${origin}/${path}`)).json();
/** Presses Tab until the element has the focus: what cannot be reached so is not there for everybody. */
async function tabTo(page, selector, most = 40) {
  for (let presses = 0; presses < most; presses++) {
    if (await page.evaluate((wanted) => document.activeElement?.matches(wanted) === true, selector)) return true;
    await page.keyboard.press('Tab');
  }
  return false;
}

try {
  // ---- the host, as it runs ------------------------------------------------------------------------
  const page = await open();
  const begun = performance.now();
  await ready(page);
  console.log(`first graph ${Math.round(performance.now() - begun)} ms after the page was asked for`);
  check((await page.locator('.service .face').textContent()).includes('Whole host'), 'the host is shown first');
  check(/CPU/.test(await page.locator('.summary').textContent()), 'the summary says what is measured');
  check(/complete stacks/.test(await page.locator('.summary').textContent()), 'the share of complete stacks is said');
  const boxes = await page.locator('canvas.flamegraph-canvas').evaluate((canvas) => ({ ...canvas.dataset }));
  check(Number(boxes.boxes) > 20, `boxes are drawn: ${boxes.boxes}`);
  await picture(page, '01-host');

  // ---- a service, by keyboard alone ----------------------------------------------------------------
  await page.keyboard.press('w');
  await page.waitForSelector('[role=listbox] [role=option]');
  await page.keyboard.type(service);
  await page.waitForFunction((name) => document.querySelector('[data-active] .name')?.textContent === name, service);
  await picture(page, '02-services');
  await page.keyboard.press('Enter');
  await urlHas(page, 'service', service);
  await ready(page);
  check((await page.locator('.service .face').textContent()) === service, 'the picker shows the service');

  // What has been kept for a few seconds only is a few pixels wide, and a mark of those is taken for a click.
  const kept = async () => {
    const { from, to, points } = await json('api/v1/profiles/timeline?from=-15m');
    const first = Date.parse(points.find((point) => point.value > 0)?.time ?? to);
    return { begin: Date.parse(from), first, end: Date.parse(to) };
  };
  const deadline = Date.now() + 120_000;
  for (let now = await kept(); now.end - now.first < 40_000 && Date.now() < deadline; now = await kept()) {
    await page.waitForTimeout(250);
  }

  // A range that stands still, so that whatever is asked twice is the same.
  await page.keyboard.press('l');
  await urlHas(page, 'live', 'off');
  // The second half of what there is.
  const { begin, first, end } = await kept();
  const strip = await page.locator('.strip.after').boundingBox();
  const xOf = (ms) => strip.x + ((ms - begin) / (end - begin)) * strip.width;
  const middle = xOf((first + end) / 2 + 2_000);
  await page.mouse.move(middle, strip.y + 20);
  await page.mouse.down();
  await page.mouse.move(middle + 20, strip.y + 22, { steps: 4 });
  await page.mouse.move(strip.x + strip.width - 1, strip.y + 22, { steps: 4 });
  await page.mouse.up();
  await page.waitForFunction(() => window.location.hash.includes('brush='));
  await ready(page);
  const [from, to] = (await fields(page)).get('brush').split('-');
  check(Number(to) > Number(from), 'the brush is a range');
  await picture(page, '03-brushed');

  // ---- zoom and search by keyboard -----------------------------------------------------------------
  await page.keyboard.press('/');
  await page.keyboard.type(burner);
  await page.waitForFunction(() => /%/.test(document.querySelector('.search output')?.textContent ?? ''));
  await page.keyboard.press('Enter');
  await urlHas(page, 'search', burner);
  await page.waitForFunction((name) => document.querySelector('[aria-selected=true]')?.ariaLabel?.startsWith(name), burner);
  check((await page.locator('.panel h2').textContent()) === burner, 'the panel tells of the hit');
  check(/module/.test(await page.locator('.panel .facts').textContent()), 'its module is said');
  check(/unwinding\s*complete/.test(await page.locator('.panel .facts').innerText()), 'its stacks are complete');
  await page.keyboard.press('Escape');
  await page.keyboard.press('Escape');
  check(await page.evaluate(() => document.activeElement?.getAttribute('role') === 'tree'), 'Escape goes back to the graph');
  await page.keyboard.press('ArrowUp');
  const caller = await selected(page);
  check(!caller.startsWith(burner), `up goes to the caller: ${caller}`);
  await page.keyboard.press('Enter');
  await page.waitForFunction(() => window.location.hash.includes('zoom='));
  await page.keyboard.press('f');
  await urlHas(page, 'direction', 'flame');
  await picture(page, '04-zoomed-flame');

  // ---- the same again from the URL -----------------------------------------------------------------
  const address = page.url();
  const label = await selected(page);
  const before = await page.locator('canvas.flamegraph-canvas').getAttribute('data-boxes');
  await page.reload();
  await ready(page);
  check(page.url() === address, 'loading again keeps the URL');
  check((await selected(page)) === label, `loading again keeps the selection: ${label}`);
  check((await page.locator('canvas.flamegraph-canvas').getAttribute('data-boxes')) === before, 'the same boxes are drawn');
  check((await page.locator('.service .face').textContent()) === service, 'and the same service is picked');

  // ---- the table, against the API's -----------------------------------------------------------------
  await page.keyboard.press('0');
  await page.keyboard.press('2');
  await page.waitForSelector('table.top tbody tr');
  const top = await json(`api/v1/profiles/top?service=${encodeURIComponent(service)}&from=${from}&to=${to}`);
  const rows = await page.locator('table.top tbody tr').evaluateAll((found) =>
    found.slice(0, 5).map((row) => ({
      name: row.querySelector('.function button').title,
      shares: [...row.querySelectorAll('.share')].map((share) => share.textContent),
    })),
  );
  check(rows.length > 0 && rows[0].name === top.functions[0].name, `the table begins with ${top.functions[0]?.name}`);
  for (const row of rows) {
    const told = top.functions.filter((one) => one.name === row.name);
    const percent = (part) => ((part / top.total) * 100).toFixed(1);
    const is = (text, part) => text.startsWith(percent(part)) || part / top.total < 0.01 || part === top.total;
    check(told.some((one) => is(row.shares[0], one.self) && is(row.shares[1], one.total)), `${row.name}: ${row.shares.join(' ')}`);
  }
  await picture(page, '05-table');

  // ---- the sandwich -----------------------------------------------------------------------------------
  check(await tabTo(page, 'table.top .function button', 60), 'rows of the table are reached by Tab');
  await page.keyboard.press('Enter');
  await page.waitForSelector('.halves canvas[data-boxes]');
  check((await page.locator('.halves canvas').count()) === 2, 'callers and callees');
  check((await page.locator('.halves h2').textContent()) === rows[0].name, 'of the function of the row');
  await picture(page, '06-sandwich');
  await page.goBack();
  await page.waitForSelector('table.top');

  // ---- comparing times, then services -------------------------------------------------------------------
  await page.keyboard.press('1');
  await ready(page);
  await page.keyboard.press('c');
  await urlHas(page, 'compare', 'on');
  await page.waitForSelector('.line.before .strip');
  await page.waitForSelector('.facts-line .side.before');
  check((await page.locator('.strip').count()) === 2, 'each side has a time line');
  const sides = await fields(page);
  check(sides.get('baseBrush').split('-')[1] === sides.get('brush').split('-')[0], 'A ends where B begins');
  await picture(page, '07-compared-times');
  await page.locator('.line.before .service .face').click();
  await page.keyboard.type(other);
  await page.waitForFunction((name) => document.querySelector('[data-active] .name')?.textContent === name, other);
  await page.keyboard.press('Enter');
  await urlHas(page, 'baseService', other);
  await page.locator('.line.before .line-tools button').click();
  await page.waitForFunction(() => !window.location.hash.includes('baseBrush='));
  await ready(page);
  check(/baseline/.test(await page.locator('.panel .figures').textContent()), 'the panel compares');
  await picture(page, '08-compared-services');
  await page.keyboard.press('2');
  await page.waitForSelector('td.grew, td.shrank');
  await picture(page, '09-compared-table');
  const compared = page.url();
  await page.reload();
  await page.waitForSelector('td.grew, td.shrank');
  check(page.url() === compared, 'a comparison survives loading again');
  await page.keyboard.press('c');
  await urlHas(page, 'compare', null);

  // ---- downloads ------------------------------------------------------------------------------------------
  await page.keyboard.press('d');
  await page.waitForSelector('.downloads .files a');
  await picture(page, '10-downloads');
  check((await page.locator('.copyable textarea').inputValue()).startsWith("go tool pprof -http=: 'http://"), 'a command is offered');
  const [download] = await Promise.all([page.waitForEvent('download'), page.keyboard.press('Enter')]);
  await download.saveAs(join(folder, 'profile.pb.gz'));
  check(download.suggestedFilename().endsWith('.pb.gz'), `the file is called ${download.suggestedFilename()}`);
  await page.keyboard.press('Escape');
  check((await page.locator('.downloads .files').count()) === 0, 'Escape closes the list');

  // ---- help, filters, time, and what is not there --------------------------------------------------------------
  await page.keyboard.press('?');
  await page.waitForSelector('dialog[open]');
  await picture(page, '11-keys');
  await page.keyboard.press('Escape');
  await page.waitForSelector('dialog', { state: 'detached' });
  await page.keyboard.press('t');
  await page.waitForSelector('.presets');
  await page.keyboard.press('Shift+Tab');
  await page.keyboard.press('Escape');
  await page.context().close();

  const missing = await open({ service: 'no-such-service' });
  await missing.waitForSelector('[role=alert]');
  check(/no-such-service/.test(await missing.locator('[role=alert]').textContent()), 'the server says what is missing');
  await picture(missing, '12-missing');
  await missing.getByRole('button', { name: 'Whole host' }).click();
  await ready(missing);
  check((await fields(missing)).get('service') === null, 'and a button leads out');
  await missing.context().close();

  // ---- dark, and on a phone ---------------------------------------------------------------------------------------
  const dark = await open({ service }, { dark: true, scale: 2 });
  await ready(dark);
  const panel = await dark.locator('.flamegraph-scroller').boundingBox();
  await dark.mouse.move(panel.x + panel.width / 3, panel.y + 90);
  await dark.waitForSelector('.tooltip');
  await picture(dark, '13-dark');
  await dark.locator('.quality .face').click();
  await picture(dark, '14-dark-quality');
  await dark.context().close();

  const phone = await open({}, { width: 390, height: 800, scale: 2 });
  await ready(phone);
  check(
    !(await phone.evaluate(() => document.documentElement.scrollWidth > window.innerWidth)),
    'nothing is wider than a phone',
  );
  await picture(phone, '15-phone');
  await phone.locator('.service .face').click();
  await phone.waitForSelector('[role=option]');
  const list = await phone.locator('.service .popover-panel').boundingBox();
  check(list.x >= 0 && list.x + list.width <= 390, 'the list of services fits');
  await picture(phone, '16-phone-services');
  await phone.context().close();
} catch (error) {
  failures++;
  console.error(`failed: ${error.stack}`);
  for (const context of browser.contexts()) {
    for (const page of context.pages()) await picture(page, 'failed').catch(() => undefined);
  }
} finally {
  await browser.close();
}
console.log(`${passes} checks passed, ${failures} failed`);
process.exit(failures === 0 && passes > 0 ? 0 : 1);
