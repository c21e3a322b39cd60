// Finds one slow request as somebody does who is woken at night: `node tests/one-request.js URL SERVICE ROUTE
// FUNCTION PERCENT FOLDER [AT-LEAST HANDLER]`. SERVICE of the server at URL has answered one request of ROUTE, the only one
// that took AT-LEAST (250ms), with PERCENT of its CPU time in FUNCTION, which HANDLER called. Screenshots are left in
// FOLDER. `tests/serve_in_a_browser.rs` and `tests/slow_request_names_the_script.rs` start all that.
import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

const [origin, service, route, slow, percent, folder, atLeast = '250ms', handler = ''] = process.argv.slice(2);
const candidates = [process.env.CHROMIUM, '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];
const executablePath = candidates.find((path) => path !== undefined && existsSync(path));
if (executablePath === undefined) throw new Error('there is no Chromium');
mkdirSync(folder, { recursive: true });
const browser = await chromium.launch({
  executablePath,
  args: ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
});
try {
  const page = await browser.newPage({ viewport: { width: 1440, height: 860 } });
  page.setDefaultTimeout(30_000);
  const errors = [];
  page.on('pageerror', (error) => errors.push(error.message));
  await page.goto(origin);
  await page.waitForSelector('.body:not(.stale) canvas.flamegraph-canvas[data-boxes]');

  // The requests of the service, then the slow ones alone.
  await page.keyboard.press('q');
  await page.waitForSelector('[data-dots]');
  await page.keyboard.press('w');
  await page.waitForSelector('[role=listbox] [role=option]');
  await page.keyboard.type(service);
  await page.waitForFunction((name) => document.querySelector('[data-active] .name')?.textContent === name, service);
  await page.keyboard.press('Enter');
  await page.locator('.filters .face').click();
  await page.getByLabel('At least so long').fill(atLeast);
  await page.keyboard.press('Enter');
  await page.waitForFunction(() => document.querySelector('canvas[data-dots]')?.dataset.dots === '1');
  const name = await page.locator('.requests-list .function button').innerText();
  if (name !== `GET ${route}`) throw new Error(`the slow request is called ${name}`);

  // It, what it called, and what it ran. Its samples come with their window.
  await page.locator('.requests-list .function button').click();
  await page.waitForSelector('.span-row[aria-selected=true]');
  await page.waitForSelector('.span-stage .body:not(.stale) canvas[data-boxes]');
  await page.keyboard.press('/');
  await page.keyboard.type(slow);
  await page.waitForFunction(() => /%/.test(document.querySelector('.search output')?.textContent ?? ''));
  const said = await page.locator('.search output').innerText();
  await page.screenshot({ path: join(folder, `one-request-${service}.png`) });
  const share = Number(/^[\d.]+/.exec(said)?.[0]);
  console.log(`${slow} has ${said}; ${await page.locator('.span-stage .summary').innerText()}`);
  // A request of 0.6 s has some sixty samples: three points are a standard error where their phase is chance's.
  if (!(Math.abs(share - Number(percent)) <= 8)) throw new Error(`${slow} should have ${percent} % and has ${said}`);

  // From the function by the callers to the handler of the request, which then is shown alone.
  if (handler !== '') {
    const selected = page.locator('.span-stage [role=treeitem][aria-selected=true]');
    await page.keyboard.press('Enter');
    await page.waitForFunction(
      (name) => document.querySelector('.span-stage [role=treeitem][aria-selected=true]')?.ariaLabel?.includes(name),
      slow,
    );
    await page.keyboard.press('Escape');
    await page.keyboard.press('Escape');
    const path = [await selected.getAttribute('aria-label')];
    while (!path[0].includes(handler)) {
      await page.keyboard.press('ArrowUp');
      await page.waitForFunction(
        (label) => document.querySelector('.span-stage [role=treeitem][aria-selected=true]')?.ariaLabel !== label,
        path[0],
      );
      path.unshift(await selected.getAttribute('aria-label'));
      if (path.length > 100) throw new Error(`${slow} is not below ${handler}: ${path.join('; ')}`);
    }
    console.log(`opened: ${path.join(' → ')}`);
    await page.keyboard.press('Enter');
    await page.waitForFunction(() => window.location.hash.includes('zoom='));
    await page.waitForSelector('.span-stage .body:not(.stale) canvas[data-boxes]');
    await page.screenshot({ path: join(folder, `handler-${service}.png`) });
  }
  if (errors.length > 0) throw new Error(`errors in the page: ${errors.join('; ')}`);
} catch (error) {
  for (const page of browser.contexts().flatMap((context) => context.pages())) {
    await page.screenshot({ path: join(folder, `one-request-${service}-failed.png`) }).catch(() => undefined);
  }
  console.error(`failed: ${error.stack}`);
  process.exitCode = 1;
} finally {
  await browser.close();
}
