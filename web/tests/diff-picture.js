// Looks at a differential flame graph as a reader does: `node tests/diff-picture.js FILE.svg CHANGED GONE [HEADLINE]`. The
// box of CHANGED is red, that of GONE is there and dashed, and a click on CHANGED shows it over the whole width. With
// HEADLINE, what `check` decided is there too: a text that begins so, and CHANGED marked as dearer, in its box and in the
// list, where a click shows it over the whole width. A screenshot is left beside the file.
import { existsSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import { chromium } from 'playwright-core';

const [file, changed, gone, headline] = process.argv.slice(2);
const candidates = [process.env.CHROMIUM, '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];
const executablePath = candidates.find((path) => path !== undefined && existsSync(path));
if (executablePath === undefined) throw new Error('there is no Chromium');
const browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu'] });
try {
  const page = await browser.newPage({ viewport: { width: 1240, height: 600 } });
  const errors = [];
  page.on('pageerror', (error) => errors.push(error.message));
  await page.goto(pathToFileURL(file).href);
  const boxOf = (name) => page.locator(`.b[data-n="${name}"] rect`).first();
  const width = async (name) => Number(await boxOf(name).getAttribute('width'));
  const fill = /rgb\((\d+),(\d+),(\d+)\)/.exec(await boxOf(changed).getAttribute('fill'));
  if (!(fill && Number(fill[1]) > Number(fill[3]) + 20)) throw new Error(`${changed} is not red: ${fill?.[0]}`);
  if ((await boxOf(gone).getAttribute('stroke-dasharray')) === null) throw new Error(`${gone} is not dashed`);
  if (!((await width(gone)) > 1)) throw new Error(`${gone} cannot be seen`);
  const before = await width(changed);
  await boxOf(changed).click();
  const after = await width(changed);
  if (!(before < 1179 && after > 1179)) throw new Error(`a click has made ${before} px ${after} px`);
  await page.locator('.b').first().locator('rect').click();
  if (Math.abs((await width(changed)) - before) > 1) throw new Error('the root does not bring all of it back');
  if (headline !== undefined) {
    const texts = await page.locator('svg > text').allTextContents();
    if (!texts.some((text) => text.startsWith(headline))) throw new Error(`no ${headline} in ${texts.join(' | ')}`);
    const marked = page.locator('.b[data-v="more"]').filter({ has: page.locator('rect[stroke-width="3"]') });
    const names = await marked.evaluateAll((boxes) => boxes.map((box) => box.dataset.n));
    if (names.length !== 1 || names[0] !== changed) throw new Error(`marked is ${names.join(', ')}`);
    const style = await boxOf(changed).evaluate((box) => {
      const { stroke, strokeWidth } = window.getComputedStyle(box);
      return { stroke, strokeWidth };
    });
    if (style.stroke !== 'rgb(192, 0, 0)' || style.strokeWidth !== '3px') throw new Error(JSON.stringify(style));
    const label = await page.locator(`.b[data-n="${changed}"] text`).first().textContent();
    if (label !== `▲ ${changed}`) throw new Error(`the box says ${label}`);
    const entry = page.locator('.m', { hasText: `▲ ${changed} regressed` });
    await entry.click();
    if (!((await width(changed)) > 1179)) throw new Error('a click in the list does not show the box');
    await page.locator('.b').first().locator('rect').click();
  }
  await page.screenshot({ path: file.replace(/\.svg$/, '.png') });
  if (errors.length > 0) throw new Error(`errors in the picture: ${errors.join('; ')}`);
} catch (error) {
  console.error(`failed: ${error.stack}`);
  process.exitCode = 1;
} finally {
  await browser.close();
}
