// A short name for a node that holds in another graph of the same program too: a hash over the names on
// its path. So a URL that was made a minute ago still zooms to the same function in the same place.

import { functionKey } from './functions';
import { pathTo, type FlameGraph, type Frame } from './graph';
import { hashText } from './names';

// Two hashes of 32 bits: with one, two of a million nodes would share theirs.
function mix(high: number, low: number, frameHash: number): [number, number] {
  const nextHigh = Math.imul(high ^ frameHash, 0x85ebca6b) ^ (high >>> 15);
  const nextLow = Math.imul(low ^ frameHash, 0xc2b2ae35) ^ (low >>> 13);
  return [(nextHigh + 0x9e3779b9) >>> 0, (nextLow + 0x7f4a7c15) >>> 0];
}

/** So many paths of a graph are remembered: those that a visitor has been at. */
const MOST_REMEMBERED = 1000;

const knownPaths = new WeakMap<FlameGraph, Map<string, number>>();
const knownHashes = new WeakMap<readonly Frame[], Uint32Array>();

/** To look a path up is to walk through a million nodes; every step of a visitor does it, most often for the same. */
function pathsOf(graph: FlameGraph): Map<string, number> {
  let paths = knownPaths.get(graph);
  if (paths === undefined || paths.size >= MOST_REMEMBERED) {
    paths = new Map();
    knownPaths.set(graph, paths);
  }
  return paths;
}

function frameHashes(frames: readonly Frame[]): Uint32Array {
  let hashes = knownHashes.get(frames);
  if (hashes === undefined) {
    hashes = Uint32Array.from(frames, (frame) => hashText(`${frame.frameClass} ${functionKey(frame)}`));
    knownHashes.set(frames, hashes);
  }
  return hashes;
}

/** 16 hexadecimal digits; the root's is empty. */
export function nodePath(graph: FlameGraph, node: number): string {
  if (node === 0) return '';
  const hashes = frameHashes(graph.frames);
  let [high, low] = [0, 0];
  for (const at of pathTo(graph, node)) {
    if (at !== 0) [high, low] = mix(high, low, hashes[graph.frame[at]!]!);
  }
  const path = high.toString(16).padStart(8, '0') + low.toString(16).padStart(8, '0');
  // Nodes with the same path, such as two builds of a function side by side: the one that was asked about last.
  pathsOf(graph).set(path, node);
  return path;
}

/** The node of this path, or the root if there is none. Linear in the number of nodes, once for each path. */
export function nodeOfPath(graph: FlameGraph, path: string): number {
  if (!/^[0-9a-f]{16}$/.test(path)) return 0;
  const paths = pathsOf(graph);
  const known = paths.get(path);
  if (known !== undefined) return known;
  const node = findPath(graph, parseInt(path.slice(0, 8), 16), parseInt(path.slice(8), 16));
  paths.set(path, node);
  return node;
}

function findPath(graph: FlameGraph, wantedHigh: number, wantedLow: number): number {
  const hashes = frameHashes(graph.frames);
  const highs = new Uint32Array(graph.maxDepth + 1);
  const lows = new Uint32Array(graph.maxDepth + 1);
  for (let node = 1; node < graph.nodeCount; node++) {
    const depth = graph.depth[node]!;
    const [high, low] = mix(highs[depth - 1]!, lows[depth - 1]!, hashes[graph.frame[node]!]!);
    if (high === wantedHigh && low === wantedLow) return node;
    highs[depth] = high;
    lows[depth] = low;
  }
  return 0;
}
