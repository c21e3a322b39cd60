// Looks at a comparison of two times as a visitor does, in Debian's Chromium: `node tests/verdicts.js URL SERVICE
// BASE_FROM-BASE_TO FROM-TO CHANGED FOLDER`. CHANGED costs more at the later time, everything else only seems to.
// `tests/serve_in_a_browser.rs` starts the server. Screenshots are left in FOLDER.
import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

const [origin, service, base, brush, changed, folder] = process.argv.slice(2);
const candidates = [process.env.CHROMIUM, '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];
const executablePath = candidates.find((path) => path !== undefined && existsSync(path));
if (executablePath === undefined) throw new Error('there is no Chromium');
mkdirSync(folder, { recursive: true });
const browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu'] });
let failures = 0;
let passes = 0;
function check(holds, what) {
  if (holds) passes++;
  else {
    failures++;
    console.error(`failed: ${what}`);
  }
}
const from = base.split('-')[0];
const to = brush.split('-')[1];
const shown = { service, from, to, compare: 'on', live: 'off', baseBrush: base, brush };

async function open(fragment, dark = false) {
  const context = await browser.newContext({
    viewport: { width: 1440, height: 620 },
    colorScheme: dark ? 'dark' : 'light',
  });
  const page = await context.newPage();
  page.setDefaultTimeout(30_000);
  page.on('pageerror', (error) => check(false, `error in the page: ${error.message}`));
  page.on('console', (message) => {
    if (message.type() === 'error') check(false, `console: ${message.text()}`);
  });
  await page.goto(`${origin}/#${new URLSearchParams(fragment).toString()}`);
  await page.waitForSelector('.body:not(.stale) canvas.flamegraph-canvas[data-boxes]');
  return page;
}
const says = (page, text) =>
  page.waitForFunction((wanted) => document.querySelector('.certainty')?.textContent?.includes(wanted), text);
const marks = (page) => page.locator('canvas.flamegraph-canvas').evaluate(({ dataset }) => ({ ...dataset }));
const selected = (page) => page.locator('[role=treeitem][aria-selected=true]').getAttribute('aria-label');

try {
  for (const dark of [false, true]) {
    const page = await open(shown, dark);
    await says(page, '1 function has certainly changed, 5 within noise');
    const drawn = await marks(page);
    check(drawn.certain === '1' && drawn.noise === '5', `one box is certain and five are noise: ${JSON.stringify(drawn)}`);
    // By keyboard to what is certain, as the legend's sign has it.
    await page.keyboard.press('m');
    await page.waitForFunction((name) => document.querySelector('.panel h2')?.textContent === name, changed);
    check((await selected(page)).endsWith('certainly more'), `it is said to whoever listens: ${await selected(page)}`);
    const figures = (await page.locator('.panel .figures').innerText()).replace(/\s+/g, ' ');
    check(/verdict certainly more/.test(figures), `the panel says so: ${figures}`);
    check(/function itself \+\d+\.\d % \(95 %: \+\d+\.\d % to \+\d+\.\d %\)/.test(figures), `with its interval: ${figures}`);
    const legend = await page.locator('.legend').innerText();
    check(/certain/.test(legend) && /within noise/.test(legend) && /not judged/.test(legend), `the legend explains: ${legend}`);
    await page.screenshot({ path: join(folder, `verdicts-${dark ? 'dark' : 'light'}.png`) });
    // Its neighbours are noise, their caller is on every stack.
    await page.keyboard.press('ArrowLeft');
    await page.waitForFunction((name) => document.querySelector('.panel h2')?.textContent !== name, changed);
    check(/within noise/.test(await selected(page)), `a neighbour is noise: ${await selected(page)}`);
    await page.keyboard.press('ArrowUp');
    await page.waitForFunction(() => document.querySelector('.panel h2')?.textContent === 'serve');
    check(/not judged/.test(await page.locator('.panel .figures').innerText()), 'what is on every stack is not judged');
    // The pointer is told the same.
    const canvas = await page.locator('canvas.flamegraph-canvas').boundingBox();
    await page.mouse.move(canvas.x + 20, canvas.y + 19 * 4.5);
    await page.waitForSelector('.tooltip .verdict');
    check(/noise|certainly/.test(await page.locator('.tooltip .verdict').innerText()), 'the tooltip has a verdict');
    await page.keyboard.press('2');
    await page.waitForSelector('td.verdict.certain');
    check((await page.locator('td.verdict.certain').innerText()) === '▲ certain', 'the table has it, too');
    check((await page.locator('tbody tr').first().innerText()).includes(changed), 'the greatest change comes first');
    await page.keyboard.press('1');
    // What was decided of shares is not shown beside absolute values.
    await page.getByRole('button', { name: 'Absolute' }).click();
    await says(page, 'compare by share');
    await page.waitForFunction(() => document.querySelector('canvas.flamegraph-canvas')?.dataset.certain === '0');
    await page.context().close();
  }

  // Against itself nothing is certain; and of a few windows nothing is said, and why.
  const same = await open({ ...shown, brush: base });
  await says(same, 'No function has certainly changed');
  check((await marks(same)).certain === '0', 'nothing is marked as certain');
  await same.context().close();
  const [begin] = brush.split('-').map(Number);
  const short = await open({ ...shown, brush: `${begin}-${begin + 30}` });
  await says(short, 'No marks: B: there are 3 windows of it');
  check((await marks(short)).noise === '0', 'without a verdict there are no marks');
  await short.screenshot({ path: join(folder, 'verdicts-none.png') });
  await short.context().close();
} catch (error) {
  failures++;
  console.error(`failed: ${error.stack}`);
  for (const context of browser.contexts()) {
    for (const page of context.pages()) await page.screenshot({ path: join(folder, 'verdicts-failed.png') }).catch(() => undefined);
  }
} finally {
  await browser.close();
}
console.log(`${passes} checks passed, ${failures} failed`);
process.exit(failures === 0 && passes > 0 ? 0 : 1);
