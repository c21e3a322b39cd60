// Looks for their handler as the author of a service does: `node tests/find-handler.js URL SERVICE HANDLER PICTURE`. The
// server at URL profiles SERVICE, which is under load. The picture shows the flame graph opened at HANDLER.
// `tests/slow_request_names_the_script.rs` starts all that.
import { existsSync } from 'node:fs';
import { chromium } from 'playwright-core';

const [origin, service, handler, picture] = process.argv.slice(2);
const candidates = [process.env.CHROMIUM, '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];
const executablePath = candidates.find((path) => path !== undefined && existsSync(path));
if (executablePath === undefined) throw new Error('there is no Chromium');
const browser = await chromium.launch({
  executablePath,
  args: ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
});
try {
  const page = await browser.newPage({ viewport: { width: 1120, height: 560 }, colorScheme: 'light' });
  page.setDefaultTimeout(30_000);
  const errors = [];
  page.on('pageerror', (error) => errors.push(error.message));
  await page.goto(`${origin}/#${new URLSearchParams({ service, live: 'off' }).toString()}`);
  await page.waitForSelector('.body:not(.stale) canvas.flamegraph-canvas[data-boxes]');
  await page.keyboard.press('/');
  await page.keyboard.type(handler);
  await page.waitForFunction(() => /%/.test(document.querySelector('.search output')?.textContent ?? ''));
  const said = await page.locator('.search output').innerText();
  // Enter goes from one place where it is to the next; the picture is of that with the most time.
  const selected = page.locator('[role=treeitem][aria-selected=true]');
  const next = async () => {
    await page.keyboard.press('Enter');
    await page.waitForFunction(
      (name) => document.querySelector('[role=treeitem][aria-selected=true]')?.ariaLabel?.includes(name),
      handler,
    );
    return await selected.getAttribute('aria-label');
  };
  const shareOf = (text) => Number(/([\d.]+) % of all/.exec(text)?.[1] ?? 0);
  let label = await next();
  for (let place = Number(/· (\d+)/.exec(said)?.[1] ?? 1); place > 1; place--) {
    const other = await next();
    if (shareOf(other) > shareOf(label)) label = other;
  }
  for (let at = ''; at !== label; ) at = await next();
  const facts = await page.locator('.panel .facts').innerText();
  console.log(`${service}: ${handler} has ${said}; ${label}; ${facts.replaceAll('\n', ' ')}`);
  if (!(Number(/^[\d.]+/.exec(said)?.[0]) >= 5)) throw new Error(`${handler} has ${said} of a service that does nothing else`);
  await page.keyboard.press('Escape');
  await page.keyboard.press('Escape');
  await page.keyboard.press('Enter');
  await page.waitForFunction(() => window.location.hash.includes('zoom='));
  await page.waitForSelector('.body:not(.stale) canvas.flamegraph-canvas[data-boxes]');
  await page.screenshot({ path: picture });
  if (errors.length > 0) throw new Error(`errors in the page: ${errors.join('; ')}`);
} catch (error) {
  for (const page of browser.contexts().flatMap((context) => context.pages())) {
    await page.screenshot({ path: picture.replace(/\.png$/, '-failed.png') }).catch(() => undefined);
  }
  console.error(`failed: ${error.stack}`);
  process.exitCode = 1;
} finally {
  await browser.close();
}
