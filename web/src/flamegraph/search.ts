// Search: which nodes are hits, what share of everything they are, and the way from one to the next, also
// where a hit is too small to be seen.

import { isWithin, type FlameGraph, type Frame } from './graph';
import type { RowHits } from './boxes';

export type Query =
  | { readonly ok: true; readonly text: string; readonly matches: (frame: Frame) => boolean }
  | { readonly ok: false; readonly text: string; readonly problem: string };

/**
 * `text` is looked for in names, whatever its case; `/…/` is a regular expression, with the flags that
 * follow it or else `i`; `file:…` and `module:…` look there instead. Empty text gives `undefined`.
 */
export function parseQuery(text: string): Query | undefined {
  const trimmed = text.trim();
  if (trimmed === '') return undefined;
  const field = /^(file|module):(.*)$/s.exec(trimmed);
  const [read, wanted] =
    field === null
      ? [(frame: Frame): string => frame.name, trimmed]
      : [field[1] === 'file' ? (frame: Frame): string => frame.file : (frame: Frame): string => frame.module, field[2]!];
  // Other letters after the last slash are no flags: `/usr/lib` is a path.
  const expression = /^\/(.+)\/([gimsu]*)$/s.exec(wanted);
  if (expression !== null) {
    try {
      // With `g` each test would begin where the one before it ended.
      const flags = expression[2] === '' ? 'i' : expression[2]!.replaceAll('g', '');
      const regex = new RegExp(expression[1]!, flags);
      return { ok: true, text: trimmed, matches: (frame) => regex.test(read(frame)) };
    } catch (error) {
      return { ok: false, text: trimmed, problem: error instanceof Error ? error.message : String(error) };
    }
  }
  if (wanted === '') return undefined;
  const lower = wanted.toLowerCase();
  return { ok: true, text: trimmed, matches: (frame) => read(frame).toLowerCase().includes(lower) };
}

export interface SearchResult extends RowHits {
  /** All hits, depth first. */
  readonly hits: Uint32Array;
  /** The value of all hits; what lies below another hit is counted once. */
  readonly value: number;
}

export function search(graph: FlameGraph, matches: (frame: Frame) => boolean): SearchResult {
  const frameHits = new Uint8Array(graph.frames.length);
  graph.frames.forEach((frame, index) => {
    // The root is no function.
    if (index > 0 && matches(frame)) frameHits[index] = 1;
  });
  const isHit = new Uint8Array(graph.nodeCount);
  let count = 0;
  let value = 0;
  let coveredUpTo = 0;
  for (let node = 0; node < graph.nodeCount; node++) {
    if (frameHits[graph.frame[node]!] !== 1) continue;
    isHit[node] = 1;
    count++;
    if (node >= coveredUpTo) {
      value += graph.total[node]!;
      coveredUpTo = graph.end[node]!;
    }
  }
  const hits = new Uint32Array(count);
  const before = new Uint32Array(graph.nodeCount + 1);
  const { rows } = graph;
  let next = 0;
  for (let node = 0; node < graph.nodeCount; node++) {
    if (isHit[node] === 1) hits[next++] = node;
    before[node + 1] = before[node]! + isHit[rows[node]!]!;
  }
  return { isHit, before, hits, value };
}

/** Place in `hits` of the first hit at `node` or behind it. */
export function placeOfHit(result: SearchResult, node: number): number {
  let low = 0;
  let high = result.hits.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (result.hits[middle]! >= node) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** The hit with the greatest value; -1 if there is none. */
function widestHit(graph: FlameGraph, result: SearchResult): number {
  let widest = -1;
  for (const hit of result.hits) if (widest < 0 || graph.total[hit]! > graph.total[widest]!) widest = hit;
  return widest;
}

/**
 * The hit after `node` (`step` 1) or before it (-1), around the ends; from what is none the widest, which is what is
 * looked for mostly; -1 if there is none.
 */
export function nextHit(graph: FlameGraph, result: SearchResult, node: number, step: 1 | -1): number {
  const count = result.hits.length;
  if (count === 0) return -1;
  if (result.isHit[node] !== 1) return widestHit(graph, result);
  const place = step === 1 ? placeOfHit(result, node + 1) : placeOfHit(result, node) - 1;
  return result.hits[(place + count) % count]!;
}

/**
 * The node to zoom to so that `node` is seen: `zoom` itself if `node` is in it and at least `minimumPx`
 * wide there, else the outermost ancestor in which it is, else `node` itself.
 */
export function zoomToReveal(
  graph: FlameGraph,
  node: number,
  zoom: number,
  widthPx: number,
  minimumPx: number,
): number {
  const needed = (graph.total[node]! * widthPx) / minimumPx;
  const showsIt = (ancestor: number): boolean => graph.total[ancestor]! <= needed;
  // Ancestors of the zoomed node are as wide as the window.
  if (isWithin(graph, zoom, node)) return zoom;
  if (isWithin(graph, node, zoom) && showsIt(zoom)) return zoom;
  let best = node;
  for (let at = node; ; at = graph.parent[at]!) {
    if (showsIt(at)) best = at;
    if (at === 0) return best;
  }
}
