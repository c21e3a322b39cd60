// Two graphs as one: the union of their trees, with both values on each node. A box is as wide as both
// sides together, so that what is gone is seen as well as what is new.

import { isCode, type FlameGraph, type Frame } from './graph';
import { TreeBuilder } from './merge';
import { fileName } from './values';
import type { Marks } from './verdicts';

/**
 * What is compared: `share` compares each side's part of its own total, for ranges of different length or
 * load; `absolute` compares the values themselves.
 */
export type DiffMode = 'share' | 'absolute';

export interface DiffGraph {
  /** The union. Its values are widths: in mode `share` per mille of a side, in `absolute` units. */
  readonly graph: FlameGraph;
  readonly mode: DiffMode;
  /** By node, in units of the value. */
  readonly before: Float64Array;
  readonly after: Float64Array;
  /** What is certain of it, where that is known. */
  readonly marks?: Marks | undefined;
}

/**
 * Frames are the same if their functions are and if both are inlined or both are not. Objects are told by
 * their file's name, and those that only one side has count as one: the two may be versions of a program in
 * two folders, or two programs that were built from much the same sources.
 */
function frameKeys(graphs: readonly FlameGraph[]): (frame: Frame) => string {
  const modules = graphs.map((graph) => new Set(graph.frames.map((frame) => fileName(frame.module))));
  return (frame) => {
    const module = isCode(frame) ? fileName(frame.module) : frame.module;
    const shared = !isCode(frame) || modules.every((names) => names.has(module));
    return `${frame.frameClass}\0${frame.name}\0${shared ? module : ''}`;
  };
}

export function diff(before: FlameGraph, after: FlameGraph, mode: DiffMode): DiffGraph {
  const frames: Frame[] = [];
  const byKey = new Map<string, number>();
  const frameKey = frameKeys([before, after]);
  const numbersOf = (graph: FlameGraph): Uint32Array =>
    Uint32Array.from(graph.frames, (frame) => {
      const key = frameKey(frame);
      let number = byKey.get(key);
      if (number === undefined) {
        number = frames.length;
        byKey.set(key, number);
        frames.push(frame);
      }
      return number;
    });
  const sides = [before, after].map((graph) => ({ graph, numbers: numbersOf(graph) }));

  const builder = new TreeBuilder(frames);
  const selfOfSide: number[][] = [];
  for (const { graph, numbers } of sides) {
    const whole = graph.total[0]!;
    const scale = mode === 'absolute' ? 1 : whole > 0 ? 1000 / whole : 0;
    const self: number[] = [];
    const selfOfNode = graph.self;
    const at = new Uint32Array(graph.maxDepth + 1);
    for (let node = 0; node < graph.nodeCount; node++) {
      const depth = graph.depth[node]!;
      const merged = node === 0 ? 0 : builder.child(at[depth - 1]!, numbers[graph.frame[node]!]!);
      at[depth] = merged;
      builder.addSelf(merged, selfOfNode[node]! * scale);
      // Frames that differ in their line or build id alone have become one node.
      self[merged] = (self[merged] ?? 0) + selfOfNode[node]!;
    }
    selfOfSide.push(self);
  }
  const { graph, added } = builder.build();
  const { parent } = graph;
  const totals = selfOfSide.map((self) => {
    const total = Float64Array.from(added, (from) => self[from] ?? 0);
    for (let node = graph.nodeCount - 1; node > 0; node--) total[parent[node]!]! += total[node]!;
    return total;
  });
  return { graph, mode, before: totals[0]!, after: totals[1]! };
}

export interface Change {
  readonly before: number;
  readonly after: number;
  /** In units of the value. */
  readonly absolute: number;
  /** In percentage points of each side's total. */
  readonly points: number;
  /** Of the value (`absolute`) or of the share (`share`), in percent: `Infinity` for new, -100 for gone. */
  readonly percent: number;
  /** From -1 (only before) to 1 (only after): what the colour shows. */
  readonly balance: number;
}

export function changeOf(comparison: DiffGraph, node: number): Change {
  const before = comparison.before[node]!;
  const after = comparison.after[node]!;
  const wholeBefore = comparison.before[0]!;
  const wholeAfter = comparison.after[0]!;
  const shareBefore = wholeBefore > 0 ? before / wholeBefore : 0;
  const shareAfter = wholeAfter > 0 ? after / wholeAfter : 0;
  const [old, now] = comparison.mode === 'share' ? [shareBefore, shareAfter] : [before, after];
  return {
    before,
    after,
    absolute: after - before,
    points: (shareAfter - shareBefore) * 100,
    percent: old > 0 ? (now / old - 1) * 100 : now > 0 ? Infinity : 0,
    balance: old + now > 0 ? (now - old) / (old + now) : 0,
  };
}
