// A short name for a node that holds in another graph of the same program too: a hash over the names on
// its path. So a URL that was made a minute ago still zooms to the same function in the same place.

import { functionKey } from './functions';
import type { FlameGraph } from './graph';
import { hashText } from './names';

// Two hashes of 32 bits: with one, two of a million nodes would share theirs.
function mix(high: number, low: number, frameHash: number): [number, number] {
  const nextHigh = Math.imul(high ^ frameHash, 0x85ebca6b) ^ (high >>> 15);
  const nextLow = Math.imul(low ^ frameHash, 0xc2b2ae35) ^ (low >>> 13);
  return [(nextHigh + 0x9e3779b9) >>> 0, (nextLow + 0x7f4a7c15) >>> 0];
}

function frameHash(graph: FlameGraph, node: number): number {
  const frame = graph.frames[graph.frame[node]!]!;
  return hashText(`${frame.frameClass} ${functionKey(frame)}`);
}

/** 16 hexadecimal digits; the root's is empty. */
export function nodePath(graph: FlameGraph, node: number): string {
  if (node === 0) return '';
  const nodes: number[] = [];
  for (let at = node; at !== 0; at = graph.parent[at]!) nodes.push(at);
  let [high, low] = [0, 0];
  for (let place = nodes.length - 1; place >= 0; place--) {
    [high, low] = mix(high, low, frameHash(graph, nodes[place]!));
  }
  return high.toString(16).padStart(8, '0') + low.toString(16).padStart(8, '0');
}

/** The node of this path, or the root if there is none. Linear in the number of nodes. */
export function nodeOfPath(graph: FlameGraph, path: string): number {
  if (!/^[0-9a-f]{16}$/.test(path)) return 0;
  const wantedHigh = parseInt(path.slice(0, 8), 16);
  const wantedLow = parseInt(path.slice(8), 16);
  const hashes = Uint32Array.from(graph.frames, (frame) => hashText(`${frame.frameClass} ${functionKey(frame)}`));
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
