// What a graph of a million nodes costs the page: decoding it in Node.js and in Chromium, and drawing it while
// zooming. `node bench.js [--runs N]`; `make bench` calls it. Best and middle of so many runs are printed: the
// best is what the code takes, the middle what a busy machine makes of it. The first run is printed too, where
// no code is compiled yet: it is what a visitor waits for.
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';
import { startMock } from './tests/mock-server.js';

const NODES = 1_000_000;
/** What a sample at 99 Hz stands for. */
const SAMPLE_NS = 10_101_010;
const at = process.argv.indexOf('--runs');
const runs = at > 0 ? Number(process.argv[at + 1]) : 15;
const folder = mkdtempSync(join(tmpdir(), 'spanflame-bench-'));
const here = import.meta.dirname ?? '.';

function report(what, times, bound) {
  const sorted = [...times].sort((one, other) => one - other);
  const figure = (time) => `${time.toFixed(1)} ms`.padStart(10);
  const middle = sorted[Math.floor(sorted.length / 2)];
  console.log(`${what.padEnd(48)} ${figure(times[0])} ${figure(sorted[0])} ${figure(middle)}   ${bound}`);
}

/** Runs in Node.js and in the browser: makes the file once, decodes it again and again. */
const ENTRY = `
  import { decodeColumnar } from ${JSON.stringify(join(here, 'src/flamegraph/columnar'))};
  import { buildGraph } from ${JSON.stringify(join(here, 'src/flamegraph/graph'))};
  import { encodeForTest, randomGraph } from ${JSON.stringify(join(here, 'src/flamegraph/testgraphs'))};
  export const file = (nodes, unit) => encodeForTest(randomGraph(nodes, 11, unit));
  export function decodeTimes(bytes, runs) {
    const times = [];
    for (let run = 0; run < runs; run++) {
      const begun = performance.now();
      const { graph } = decodeColumnar(bytes);
      times.push(performance.now() - begun);
      if (graph.nodeCount !== ${NODES}) throw new Error('not what was encoded');
    }
    return times;
  }
  export function layoutTimes(bytes, runs) {
    const times = [];
    for (let run = 0; run < runs; run++) {
      const { graph } = decodeColumnar(bytes);
      const begun = performance.now();
      graph.layOut();
      times.push(performance.now() - begun);
    }
    return times;
  }
  /** Only so much fresh memory as a decoded graph has, each page of it once: what no decoder can go below. */
  export function memoryTimes(nodes, runs) {
    const times = [];
    for (let run = 0; run < runs; run++) {
      const begun = performance.now();
      for (const bytes of [2, 4, 4, 8]) {
        const column = new Uint8Array(nodes * bytes);
        for (let at = 0; at < column.length; at += 4096) column[at] = 1;
      }
      times.push(performance.now() - begun);
    }
    return times;
  }
`;

try {
  const bundle = join(folder, 'decode.mjs');
  const options = { stdin: { contents: ENTRY, resolveDir: here, loader: 'ts' }, bundle: true, logLevel: 'error' };
  await build({ ...options, format: 'esm', outfile: bundle });
  await build({ ...options, format: 'iife', globalName: 'bench', outfile: join(folder, 'decode.js') });
  const { file, decodeTimes, layoutTimes, memoryTimes } = await import(pathToFileURL(bundle).href);
  const bytes = file(NODES, 1);
  const columnar = join(folder, 'million.columnar');
  writeFileSync(columnar, bytes);
  console.log(`\nThe page, ${NODES.toLocaleString('en')} nodes: ${(bytes.length / 1e6).toFixed(2)} MB, ${(gzipSync(bytes).length / 1e6).toFixed(2)} MB after gzip`);
  console.log(`${''.padEnd(48)} ${'first'.padStart(10)} ${'best'.padStart(10)} ${'middle'.padStart(10)}   bound`);
  report('decode, Node.js', decodeTimes(bytes, runs), '40 ms');
  report('decode values in nanoseconds', decodeTimes(file(NODES, SAMPLE_NS), runs), '40 ms');
  report('  its fresh memory alone', memoryTimes(NODES, runs), '');
  report('put into rows, for the first picture', layoutTimes(bytes, runs), '');

  const chromes = [process.env.CHROMIUM, '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];
  const executablePath = chromes.find((path) => path !== undefined && existsSync(path));
  if (executablePath === undefined || !existsSync(join(here, 'dist/index.html'))) {
    console.log('in a browser: not measured, for want of Chromium or of the built page (make page)');
  } else {
    await inBrowser(executablePath, columnar);
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}

async function inBrowser(executablePath, columnar) {
  const { chromium } = await import('playwright-core');
  const mock = await startMock({ after: columnar });
  const browser = await chromium.launch({
    executablePath,
    args: ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
  });
  try {
    const page = await browser.newPage({ viewport: { width: 1600, height: 1000 }, bypassCSP: true });
    await page.goto(`${mock.origin}/#live=off`);
    await page.waitForSelector('canvas.flamegraph-canvas[data-boxes]');
    // Down the widest callees and out again, a step a frame: what the drawing takes, and what passes from
    // frame to frame, which a screen of 60 Hz does not let be less than 16.7 ms.
    const zooms = await page.evaluate(async (steps) => {
      const tree = document.querySelector('.flamegraph-scroller');
      const canvas = document.querySelector('canvas.flamegraph-canvas');
      const press = (key) => tree.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true, cancelable: true }));
      const frame = () => new Promise((resolve) => requestAnimationFrame(resolve));
      const [paints, frames] = [[], []];
      await frame();
      let before = await frame();
      for (let step = 0; step < steps; step++) {
        if (step % 20 === 19) press('0');
        else press(step % 2 === 0 ? 'ArrowDown' : 'Enter');
        const now = await frame();
        frames.push(now - before);
        before = now;
        paints.push(Number(canvas.dataset.paintMs));
      }
      return { paints, frames };
    }, 120);
    await page.addScriptTag({ path: join(folder, 'decode.js') });
    const times = await page.evaluate(
      ([nodes, runs, sampleNs]) => {
        const bytes = window.bench.file(nodes, 1);
        return {
          decode: window.bench.decodeTimes(bytes, runs),
          decodeNs: window.bench.decodeTimes(window.bench.file(nodes, sampleNs), runs),
          memory: window.bench.memoryTimes(nodes, runs),
          layout: window.bench.layoutTimes(bytes, runs),
        };
      },
      [NODES, runs, SAMPLE_NS],
    );
    report('decode, Chromium', times.decode, '40 ms');
    report('decode values in nanoseconds', times.decodeNs, '40 ms');
    report('  its fresh memory alone', times.memory, '');
    report('put into rows, for the first picture', times.layout, '');
    report('draw after a zoom', zooms.paints, '');
    report('from frame to frame while zooming', zooms.frames, '16.7 ms');
  } finally {
    await browser.close();
    mock.close();
  }
}
